//! Short byte buffers without an allocation.

/// A buffer of bytes, of which up to `N` are stored in place; a longer one is on the heap.
///
/// With an `N` of 30 or 46 it takes 32 or 48 bytes, without padding. A `SmallVec` of bytes is
/// larger by the width of its length, and made a plan a third slower.
pub(crate) enum InlineBytes<const N: usize> {
    Short { length: u8, bytes: [u8; N] },
    Long(Vec<u8>),
}

const _: () = assert!(size_of::<InlineBytes<30>>() == 32 && size_of::<InlineBytes<46>>() == 48);

impl<const N: usize> InlineBytes<N> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    /// Appends `head`, whose length is known at compile time, and then `rest`.
    pub(crate) fn extend<const HEAD: usize>(&mut self, head: [u8; HEAD], rest: &[u8]) {
        if let Self::Short { length, bytes } = self {
            let before = usize::from(*length);
            let after = before + HEAD + rest.len();
            let space = bytes.get_mut(before..after).and_then(|space| space.split_first_chunk_mut::<HEAD>());
            if let (Some((to_head, to_rest)), Ok(after)) = (space, u8::try_from(after)) {
                *to_head = head;
                to_rest.copy_from_slice(rest);
                *length = after;
                return;
            }
        }
        self.extend_on_heap(&head, rest);
    }

    #[cold]
    fn extend_on_heap(&mut self, head: &[u8], rest: &[u8]) {
        let mut bytes = match std::mem::take(self) {
            Self::Long(bytes) => bytes,
            short @ Self::Short { .. } => short.as_slice().to_vec(),
        };
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(rest);
        *self = Self::Long(bytes);
    }
}

impl<const N: usize> Default for InlineBytes<N> {
    fn default() -> Self {
        Self::Short { length: 0, bytes: [0; N] }
    }
}

impl<const N: usize> From<&[u8]> for InlineBytes<N> {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::default();
        buffer.extend([], bytes);
        buffer
    }
}

impl<const N: usize> Clone for InlineBytes<N> {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    fn clone_from(&mut self, from: &Self) {
        match (self, from) {
            (Self::Short { length: to_length, bytes: to }, Self::Short { length, bytes }) => {
                (*to_length, *to) = (*length, *bytes);
            }
            (to, Self::Short { length, bytes }) => *to = Self::Short { length: *length, bytes: *bytes },
            (to, Self::Long(bytes)) => *to = Self::Long(bytes.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_buffers_keep_their_bytes() {
        for length in [0, 1, 3, 4, 5, 300] {
            let all: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            for cut in 0..=length {
                let (first, second) = all.split_at(cut);
                let mut buffer = InlineBytes::<4>::from(first);
                buffer.extend([7, 8], second);
                assert_eq!(buffer.as_slice(), [first, &[7, 8], second].concat());
                assert_eq!(matches!(buffer, InlineBytes::Long(_)), length + 2 > 4);
            }
        }
    }

    #[test]
    fn a_copy_has_the_same_bytes() {
        let buffers = [&b"ab"[..], b"abcd", b"longer than four"].map(InlineBytes::<4>::from);
        for from in &buffers {
            assert_eq!(from.clone().as_slice(), from.as_slice());
            for to in &buffers {
                let mut to = to.clone();
                to.clone_from(from);
                assert_eq!(to.as_slice(), from.as_slice());
            }
        }
    }
}
