//! Windows and dates.

use serde_json::Value;

use super::text;

pub(super) const SECOND: i64 = 1_000_000;
pub(super) const MINUTE: i64 = 60 * SECOND;
pub(super) const HOUR: i64 = 60 * MINUTE;
pub(super) const DAY: i64 = 24 * HOUR;

#[derive(Debug, Clone)]
pub(super) enum Window {
    /// A unit from `second` to `month`, and the offset in microseconds.
    Calendar(String, i64),
    /// A length in microseconds.
    Every(i64),
}

pub(super) fn window(window: &Value, offset: &Value) -> Window {
    if let Some(number) = window.as_number() {
        let seconds = number.as_i64().or(number.as_f64().map(|double| double as i64));
        return Window::Every(seconds.expect("seconds") * SECOND);
    }
    let name = text(window);
    let digits = name.trim_end_matches(char::is_alphabetic);
    let unit = match &name[digits.len()..] {
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        _ => return Window::Calendar(name, offset_from(offset)),
    };
    Window::Every(digits.parse::<i64>().expect("a duration") * unit)
}

/// Returns the length of a window without alignment. A month has 30 days.
pub(super) fn length(window: &Window) -> i64 {
    match window {
        Window::Every(length) => *length,
        Window::Calendar(name, _) => match name.as_str() {
            "month" => 30 * DAY,
            _ => window_at(window, 0).1 - window_at(window, 0).0,
        },
    }
}

/// Parses an offset such as `+02:00` into microseconds.
pub(super) fn offset_from(offset: &Value) -> i64 {
    let offset = offset.as_str().unwrap_or("+00:00");
    let (hours, minutes) = offset[1..].split_once(':').expect("hours and minutes");
    let number = |digits: &str| digits.parse::<i64>().expect("a number");
    let length = number(hours) * HOUR + number(minutes) * MINUTE;
    if offset.starts_with('-') { -length } else { length }
}

/// Returns start and end of the window that contains `now`.
pub(super) fn window_at(window: &Window, now: i64) -> (i64, i64) {
    let (name, offset) = match window {
        Window::Every(length) => return aligned(now, *length),
        Window::Calendar(name, offset) => (name, *offset),
    };
    if name == "lifetime" {
        return (i64::MIN, i64::MAX);
    }
    let local = now + offset;
    let days = local.div_euclid(DAY);
    let (start, end) = match name.as_str() {
        "second" => aligned(local, SECOND),
        "minute" => aligned(local, MINUTE),
        "hour" => aligned(local, HOUR),
        "day" => aligned(local, DAY),
        "week" => {
            let monday = days - (weekday(days) - 1);
            (monday * DAY, (monday + 7) * DAY)
        }
        "month" => {
            let (year, month, day) = date(days);
            let first = days - (day - 1);
            (first * DAY, (first + days_in(year, month)) * DAY)
        }
        other => panic!("the model does not know the window `{other}`"),
    };
    (start - offset, end - offset)
}

pub(super) fn aligned(now: i64, length: i64) -> (i64, i64) {
    let start = now.div_euclid(length) * length;
    (start, start + length)
}

/// Returns 1 for Monday to 7 for Sunday. The epoch was a Thursday.
pub(super) fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7) + 1
}

pub(super) fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Returns year, month and day of a number of days since the epoch, counted month by month.
pub(super) fn date(days: i64) -> (i64, i64, i64) {
    let year_and_month = |months: i64| (1970 + months.div_euclid(12), 1 + months.rem_euclid(12));
    let length = |months: i64| days_in(year_and_month(months).0, year_and_month(months).1);
    let (mut months, mut left) = (0, days);
    while left < 0 {
        months -= 1;
        left += length(months);
    }
    while left >= length(months) {
        left -= length(months);
        months += 1;
    }
    let (year, month) = year_and_month(months);
    (year, month, left + 1)
}
