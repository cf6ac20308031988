//! Server-sent events, read as they come.

/// A stream of server-sent events in pieces of any size. It keeps no more than the event that is under way.
pub(crate) struct Events {
    bound: usize,
    line: Vec<u8>,
    event: Event,
    /// The line before ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    /// Nothing but a byte order mark may have come.
    is_first: bool,
}

/// What a stream is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The text of a comment: what keeps a connection alive.
    Comment(Vec<u8>),
    Event(Event),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Every field but the data, a line each.
    fields: Vec<u8>,
    /// Whether a stream can be resumed after it.
    pub(crate) has_id: bool,
    pub(crate) data: Option<Vec<u8>>,
}

/// An event, or a line, is longer than the bound.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Event {
    /// Writes the event with other data; without data what is left of it, if anything is.
    pub(crate) fn write(&self, to: &mut Vec<u8>, data: Option<&[u8]>) {
        if self.fields.is_empty() && data.is_none() {
            return;
        }
        to.extend_from_slice(&self.fields);
        if let Some(data) = data {
            write_data(to, data);
        }
        to.push(b'\n');
    }
}

/// Writes an event that has data alone.
pub(crate) fn write_message(to: &mut Vec<u8>, message: &[u8]) {
    to.extend_from_slice(b"event: message\n");
    write_data(to, message);
    to.push(b'\n');
}

pub(crate) fn write_comment(to: &mut Vec<u8>, comment: &[u8]) {
    to.push(b':');
    to.extend_from_slice(comment);
    to.extend_from_slice(b"\n\n");
}

/// The data lines. JSON has line ends between its tokens alone, where one is as good as the other.
fn write_data(to: &mut Vec<u8>, data: &[u8]) {
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        to.extend_from_slice(b"data: ");
        to.extend_from_slice(line);
        to.push(b'\n');
    }
}

impl Events {
    /// Events of at most so many bytes.
    pub(crate) fn new(bound: usize) -> Self {
        Self { bound, line: Vec::new(), event: Event::default(), after_return: false, is_first: true }
    }

    /// Takes the next bytes, and puts what is whole by now behind `parts`.
    pub(crate) fn take(&mut self, mut bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.keep(bytes);
            };
            let (line, rest) = bytes.split_at(end);
            self.after_return = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() {
                self.fits(line.len())?;
                self.read(line, parts);
            } else {
                self.keep(line)?;
                let line = std::mem::take(&mut self.line);
                self.read(&line, parts);
            }
        }
        Ok(())
    }

    fn fits(&self, more: usize) -> Result<(), TooLong> {
        let held = self.line.len() + self.event.fields.len() + self.event.data.as_ref().map_or(0, Vec::len);
        if held + more > self.bound { Err(TooLong) } else { Ok(()) }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.fits(bytes.len())?;
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, line: &[u8], parts: &mut Vec<Part>) {
        let is_first = std::mem::take(&mut self.is_first);
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if event != Event::default() {
                parts.push(Part::Event(event));
            }
            return;
        }
        if let Some(comment) = line.strip_prefix(b":") {
            parts.push(Part::Comment(comment.to_vec()));
            return;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => match &mut self.event.data {
                None => self.event.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            b"id" if !value.contains(&0) => {
                self.event.has_id = !value.is_empty();
                self.field(name, value);
            }
            b"event" => self.field(name, value),
            b"retry" if value.iter().all(u8::is_ascii_digit) => self.field(name, value),
            // No reader makes anything of other fields.
            _ => {}
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        let fields = &mut self.event.fields;
        fields.extend_from_slice(name);
        fields.extend_from_slice(b": ");
        fields.extend_from_slice(value);
        fields.push(b'\n');
    }
}
