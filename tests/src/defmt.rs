//! Reads a firmware's logs: defmt frames, with the strings that stayed in its ELF file.
//!
//! It knows the wire format 4 of defmt in its rzCOBS encoding and the types that firmwares here log: integers, booleans,
//! strings, derived formats and `Debug2Format`. For all of defmt there is `defmt-print`.

use std::collections::BTreeMap;

/// The strings of a firmware, by their index.
pub struct Strings(BTreeMap<u16, Entry>);

struct Entry {
    tag: String,
    data: String,
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

/// The bytes up to the next zero.
fn name(bytes: &[u8], at: usize) -> Option<&str> {
    str::from_utf8(bytes.get(at..)?.split(|&b| b == 0).next()?).ok()
}

impl Strings {
    /// From a 32-bit little-endian ELF file: each symbol of the section `.defmt` is named after its string.
    #[must_use]
    pub fn read(elf: &[u8]) -> Option<Self> {
        const SECTION: usize = 40;
        const SYMBOL: usize = 16;
        const SYMBOL_TABLE: usize = 2;
        let (sections, count, names) = (word(elf, 32)?, half(elf, 48)?, half(elf, 50)?);
        let field = |section: usize, i: usize| word(elf, sections + SECTION * section + 4 * i);
        let names = field(names, 4)?;
        let is_strings = |&i: &usize| field(i, 0).and_then(|n| name(elf, names + n)) == Some(".defmt");
        let strings = (0..count).find(is_strings)?;
        let table = (0..count).find(|&i| field(i, 1) == Some(SYMBOL_TABLE))?;
        let (start, len, link) = (field(table, 4)?, field(table, 5)?, field(table, 6)?);
        let names = field(link, 4)?;
        let mut found = BTreeMap::new();
        for at in (start..start + len).step_by(SYMBOL) {
            if half(elf, at + 14)? != strings {
                continue;
            }
            let Ok(symbol) = serde_json::from_str::<serde_json::Value>(name(elf, names + word(elf, at)?)?) else {
                continue;
            };
            let text = |key: &str| symbol[key].as_str().unwrap_or_default().to_owned();
            found.insert(word(elf, at + 4)? as u16, Entry { tag: text("tag"), data: text("data") });
        }
        Some(Self(found))
    }

    /// The lines of a log, each with its level; what does not decode is `None`, such as a line that a power cut ended.
    pub fn lines<'l>(&'l self, log: &'l [u8]) -> impl Iterator<Item = Option<String>> + 'l {
        log.split(|&b| b == 0).filter(|frame| !frame.is_empty()).map(|frame| {
            let bytes = unstuff(frame)?;
            let mut rest = &bytes[..];
            let entry = self.entry(&mut rest)?;
            let level = entry.tag.strip_prefix("defmt_")?;
            Some(format!("{level:5} {}", self.render(&entry.data, &mut rest)?))
        })
    }

    fn entry(&self, rest: &mut &[u8]) -> Option<&Entry> {
        self.0.get(&(take(rest, 2)? as u16))
    }

    /// Puts values in the places of a format string.
    fn render(&self, format: &str, rest: &mut &[u8]) -> Option<String> {
        let mut text = String::new();
        let mut characters = format.chars().peekable();
        while let Some(c) = characters.next() {
            match c {
                '{' | '}' if characters.peek() == Some(&c) => {
                    characters.next();
                    text.push(c);
                }
                '{' => {
                    let place: String = characters.by_ref().take_while(|&c| c != '}').collect();
                    text.push_str(&self.value(&place, rest)?);
                }
                _ => text.push(c),
            }
        }
        Some(text)
    }

    /// The value in a place such as `=u32:08x`.
    fn value(&self, place: &str, rest: &mut &[u8]) -> Option<String> {
        let (kind, hint) = place.split_once(':').unwrap_or((place, ""));
        let integer = |value: u64| if hint == "08x" { format!("{value:08x}") } else { value.to_string() };
        match kind.strip_prefix('=').unwrap_or(kind) {
            "bool" => Some((take(rest, 1)? != 0).to_string()),
            "u8" => take(rest, 1).map(integer),
            "u16" => take(rest, 2).map(integer),
            "u32" | "usize" => take(rest, 4).map(integer),
            "u64" => take(rest, 8).map(integer),
            "str" => {
                let len = take(rest, 4)? as usize;
                let (text, after) = rest.split_at_checked(len)?;
                *rest = after;
                String::from_utf8(text.to_vec()).ok()
            }
            "istr" => self.entry(rest).map(|entry| entry.data.clone()),
            "__internal_Debug" | "__internal_Display" => {
                let len = rest.iter().position(|&b| b == 0xFF)?;
                let (text, after) = rest.split_at(len);
                *rest = after.get(1..)?;
                String::from_utf8(text.to_vec()).ok()
            }
            "" | "?" => {
                let entry = self.entry(rest)?;
                let variants: Vec<&str> = entry.data.split('|').collect();
                let derived = entry.tag == "defmt_derived" && variants.len() > 1;
                let format = if derived { variants.get(take(rest, 1)? as usize)? } else { &entry.data[..] };
                self.render(format, rest)
            }
            _ => None,
        }
    }
}

/// An integer of so many bytes, little endian.
fn take(rest: &mut &[u8], len: usize) -> Option<u64> {
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

/// rzCOBS, which is read from its end: codes of seven bytes with a bit for each that is not zero, and of longer runs.
fn unstuff(frame: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut back = frame.iter().rev().copied();
    while let Some(code) = back.next() {
        match code {
            0 => return None,
            0x01..=0x7F => {
                for i in 0..7 {
                    bytes.push(if code & (1 << (6 - i)) == 0 { back.next()? } else { 0 });
                }
            }
            0x80..=0xFE => {
                bytes.push(0);
                for _ in 0..(code & 0x7F) + 7 {
                    bytes.push(back.next()?);
                }
            }
            0xFF => {
                for _ in 0..134 {
                    bytes.push(back.next()?);
                }
            }
        }
    }
    bytes.reverse();
    Some(bytes)
}
