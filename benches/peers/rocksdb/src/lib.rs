//! A replacement for RocksDB. `limitador` builds its Redis storage only together with its disk
//! storage, and RocksDB takes longer to build than everything else. This crate has the items that
//! `limitador` uses, around a database that cannot be opened.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

pub type DB = DBWithThreadMode<MultiThreaded>;
type Pair = (Box<[u8]>, Box<[u8]>);

pub struct MultiThreaded;

/// A database, of which there is never a value.
pub struct DBWithThreadMode<T>(Infallible, PhantomData<T>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    NotSupported,
    TimedOut,
    TryAgain,
}

#[derive(Debug)]
pub struct Error;

impl Error {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::NotSupported
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this database replaces RocksDB and cannot be opened")
    }
}

impl std::error::Error for Error {}

pub enum IteratorMode {
    Start,
}

pub enum DBCompressionType {
    None,
    Bz2,
}

pub enum CompactionDecision {
    Keep,
    Remove,
}

/// The operands of a merge, of which there are never any.
pub struct MergeOperands;

impl<'o> IntoIterator for &'o MergeOperands {
    type Item = &'o [u8];
    type IntoIter = std::iter::Empty<&'o [u8]>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::empty()
    }
}

#[derive(Default)]
pub struct Options;

impl Options {
    pub fn set_compression_type(&mut self, _: DBCompressionType) {}

    pub fn set_compaction_filter(
        &mut self,
        _: &str,
        _: impl FnMut(u32, &[u8], &[u8]) -> CompactionDecision + Send + 'static,
    ) {
    }

    pub fn set_merge_operator_associative(
        &mut self,
        _: &str,
        _: impl Fn(&[u8], Option<&[u8]>, &MergeOperands) -> Option<Vec<u8>> + Clone + Send + Sync + 'static,
    ) {
    }

    pub fn create_if_missing(&mut self, _: bool) {}
}

impl<T> DBWithThreadMode<T> {
    pub fn open(_: &Options, _: impl AsRef<Path>) -> Result<Self, Error> {
        Err(Error)
    }

    pub fn prefix_iterator(&self, _: impl AsRef<[u8]>) -> std::iter::Empty<Result<Pair, Error>> {
        match self.0 {}
    }

    pub fn iterator(&self, _: IteratorMode) -> std::iter::Empty<Result<Pair, Error>> {
        match self.0 {}
    }

    pub fn get(&self, _: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        match self.0 {}
    }

    pub fn delete(&self, _: impl AsRef<[u8]>) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn merge(&self, _: impl AsRef<[u8]>, _: impl AsRef<[u8]>) -> Result<(), Error> {
        match self.0 {}
    }
}
