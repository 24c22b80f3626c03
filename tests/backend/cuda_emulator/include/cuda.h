// The generated source includes this for driver types that kernels do not use.
#pragma once
#include "emulator.h"
