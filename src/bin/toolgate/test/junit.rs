//! JUnit XML, as dashboards of tests read it.

use std::fmt::Write;

use super::Ran;

pub(super) fn report(ran: &[Ran]) -> String {
    let failed = |ran: &[Ran]| ran.iter().filter(|ran| ran.failure.is_some()).count();
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    xml += &format!("<testsuites name=\"toolgate\" tests=\"{}\" failures=\"{}\">\n", ran.len(), failed(ran));
    for cases in ran.chunk_by(|a, b| a.file == b.file) {
        let file = cases.first().map(|case| escaped(&case.file)).unwrap_or_default();
        let (tests, failures) = (cases.len(), failed(cases));
        xml += &format!("  <testsuite name=\"{file}\" tests=\"{tests}\" failures=\"{failures}\">\n");
        for case in cases {
            // A `String` takes whatever is written.
            let _ = write!(xml, "    <testcase classname=\"{file}\" name=\"{}\"", escaped(&case.id));
            match &case.failure {
                None => xml += "/>\n",
                Some(failure) => {
                    let step = failure.step().map_or("before the first step".to_owned(), |step| format!("step {step}"));
                    let text = escaped(&failure.to_string());
                    xml += &format!(">\n      <failure message=\"{step}\">{text}</failure>\n    </testcase>\n");
                }
            }
        }
        xml += "  </testsuite>\n";
    }
    xml + "</testsuites>"
}

/// Escapes a text for XML. A character that XML cannot have becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            '\t' => escaped += "&#9;",
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push(char::REPLACEMENT_CHARACTER)
            }
            c => escaped.push(c),
        }
    }
    escaped
}
