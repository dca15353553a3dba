// What the other parts ask of the runtime.
#pragma once

namespace stand_in {

// Does the copies from page-locked memory that are still to be done: before the device does anything else.
void finish_copies();

}  // namespace stand_in
