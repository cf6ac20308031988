//! JSON, read strictly and written exactly: positions, exact numbers, canonical form, pointers. And
//! bytes and characters: hexadecimal digits, short buffers, characters that nobody sees.

pub(crate) mod canonical;
pub(crate) mod hex;
pub(crate) mod inline;
mod node;
pub(crate) mod number;
pub(crate) mod object;
mod parse;
pub(crate) mod pointer;
pub(crate) mod value;
pub(crate) mod visible;

pub(crate) use node::{Json, Member, Node, each_duplicate};
pub(crate) use parse::{Parser, SyntaxError, SyntaxErrorKind, plain_length};
