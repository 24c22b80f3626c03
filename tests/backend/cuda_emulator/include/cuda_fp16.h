// Half precision for the emulator: the compiler's own _Float16 under CUDA's names.
#pragma once
#include "emulator.h"
