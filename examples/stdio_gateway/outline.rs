//! What a message is that is too long to be read, and its id.

/// Reads an object byte by byte, keeps nothing of it but the value of its own member `id`, and judges nothing: what it finds
/// serves to tell a client which of its requests goes no further.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The present text of the object's own: a string, or a number.
    text: Vec<u8>,
    /// The key that the present value belongs to is `id`.
    is_id: bool,
    id: Option<String>,
    /// There were two.
    is_ambiguous: bool,
    has_method: bool,
}

/// An id is not longer.
const LONGEST: usize = 1024;

impl Outline {
    pub(crate) fn read(&mut self, part: &[u8]) {
        for byte in part {
            self.step(*byte);
        }
    }

    /// Its id, as JSON, if it is a request.
    pub(crate) fn of_request(self) -> Option<String> {
        self.id.filter(|_| self.has_method && !self.is_ambiguous)
    }

    /// The id of the request that it answers, as JSON, if it is an answer.
    pub(crate) fn of_answer(self) -> Option<String> {
        self.id.filter(|_| !self.has_method && !self.is_ambiguous)
    }

    fn step(&mut self, byte: u8) {
        let is_own = self.depth == 1;
        if self.in_string {
            self.keep(is_own, byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.keep(is_own, byte);
            }
            b':' if is_own => {
                self.is_id = self.text == b"\"id\"";
                self.has_method |= self.text == b"\"method\"";
                self.text.clear();
            }
            b',' if is_own => self.end_value(),
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
            }
            b'}' | b']' => {
                if is_own {
                    self.end_value();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            byte if byte.is_ascii_whitespace() => {}
            byte => self.keep(is_own, byte),
        }
    }

    fn keep(&mut self, is_own: bool, byte: u8) {
        if is_own && self.text.len() <= LONGEST {
            self.text.push(byte);
        }
    }

    fn end_value(&mut self) {
        if std::mem::take(&mut self.is_id) {
            let is_short = self.text.len() <= LONGEST;
            let id = std::str::from_utf8(&self.text)
                .ok()
                .filter(|id| is_short && serde_json::from_str::<serde_json::Value>(id).is_ok());
            self.is_ambiguous |= self.id.is_some();
            self.id = id.map(str::to_owned);
        }
        self.text.clear();
    }
}
