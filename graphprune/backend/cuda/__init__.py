"""The CUDA backend: the delta-4 sparse format, schedules for everything else, and cubins inside the artifact."""
