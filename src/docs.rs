//! The pages of the documentation, so that their examples compile.

pub mod security {
    #![doc = include_str!("../SECURITY.md")]
}
