//! Sizes, rates and durations as people write them.
