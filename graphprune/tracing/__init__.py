"""From a module to a traced graph, what users see of it, and what went wrong if it cannot be traced."""
