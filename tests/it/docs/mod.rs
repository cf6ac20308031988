//! The documents of the repository, compared with its code.

mod walls;
