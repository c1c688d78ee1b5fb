//! Markup that is made in code: escaped here, so that templates may print it as it is.

use std::fmt;

use askama::filters::HtmlSafe;

use super::figure;
use super::view::{Badge, Tone};

/// Markup that is safe to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Html(pub(crate) String);

impl fmt::Display for Html {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Html {}

/// Text with what means something in markup escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

impl fmt::Display for Tone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, outline) = (self.class(), self.outline());
        write!(
            f,
            r#"<svg class="mark {class}" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="{outline}"/></svg>"#
        )
    }
}

impl HtmlSafe for Tone {}

impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"<span class="badge {}">{}{}</span>"#, self.tone.class(), self.tone, escape(&self.text))
    }
}

impl HtmlSafe for Badge {}

/// A moment, how long ago, and for machines.
pub(crate) fn when(time: &i64, now: &i64) -> Html {
    let (stamp, moment, ago) = (figure::stamp(*time), figure::moment(*time), figure::ago(*time, *now));
    Html(format!(r#"<time datetime="{stamp}">{moment} <span class="ago">({ago})</span></time>"#))
}

/// The same where it may not be.
pub(crate) fn when_any(time: &Option<i64>, now: &i64) -> Html {
    time.as_ref().map_or_else(|| Html(r#"<span class="none">never</span>"#.to_owned()), |time| when(time, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let badge = Badge::new(Tone::Bad, r#"<script>alert("1")</script>&'"#);
        let text = badge.to_string();
        assert!(text.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"), "{text}");
    }
}
