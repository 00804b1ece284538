//! Everything that stands in the way of a transfer, found before anything is changed.
