//! The kind and the id of a message that is too long to be read.

/// Reads an object byte by byte, and keeps nothing except the value of its own member `id`. It
/// judges nothing: a client learns from it which of its requests goes no further.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    depth: u64,
    in_string: bool,
    escaped: bool,
    /// The present text of the object's own: a string, or a number.
    text: Vec<u8>,
    /// The present value belongs to the key `id`.
    is_id: bool,
    id: Option<String>,
    /// There were two.
    is_ambiguous: bool,
    has_method: bool,
}

/// The longest id.
const MAX_ID_BYTES: usize = 1024;

impl Outline {
    pub(crate) fn read(&mut self, part: &[u8]) {
        part.iter().for_each(|byte| self.step(*byte));
    }

    /// Returns its id, as JSON, if it is a request.
    pub(crate) fn of_request(self) -> Option<String> {
        self.id.filter(|_| self.has_method && !self.is_ambiguous)
    }

    /// Returns the id of the request that it answers, as JSON, if it is an answer.
    pub(crate) fn of_answer(self) -> Option<String> {
        self.id.filter(|_| !self.has_method && !self.is_ambiguous)
    }

    fn step(&mut self, byte: u8) {
        let is_own = self.depth == 1;
        if self.in_string {
            self.keep(is_own, byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
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
            b'{' | b'[' => self.depth = self.depth.saturating_add(1),
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
        if is_own && self.text.len() <= MAX_ID_BYTES {
            self.text.push(byte);
        }
    }

    fn end_value(&mut self) {
        if std::mem::take(&mut self.is_id) {
            let text = std::str::from_utf8(&self.text).ok().filter(|text| text.len() <= MAX_ID_BYTES);
            let id = text.filter(|id| serde_json::from_str::<serde_json::Value>(id).is_ok());
            self.is_ambiguous |= self.id.is_some();
            self.id = id.map(str::to_owned);
        }
        self.text.clear();
    }
}
