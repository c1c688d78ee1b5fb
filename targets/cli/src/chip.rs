//! Memory of common microcontrollers, from their datasheets.

use std::fmt;

use crate::failure::{Code, Failure, Outcome};
use crate::table::grouped;

/// A microcontroller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Its name, in lower case.
    pub name: &'static str,
    /// Target of the compiler that its core is.
    pub target: &'static str,
    /// Bytes of flash of the largest variant; memory-mapped where the flash is outside of the chip.
    pub flash_bytes: u64,
    /// Bytes of RAM that one array can have: the largest contiguous region for data.
    pub ram_bytes: u64,
    /// Whether the flash is another chip, whose size the board decides; `flash_bytes` is then what is usual.
    pub external_flash: bool,
}

const KIB: u64 = 1024;

const fn chip(name: &'static str, target: &'static str, flash_kib: u64, ram_kib: u64) -> Chip {
    Chip { name, target, flash_bytes: flash_kib * KIB, ram_bytes: ram_kib * KIB, external_flash: false }
}

const fn external(name: &'static str, target: &'static str, flash_kib: u64, ram_kib: u64) -> Chip {
    Chip { external_flash: true, ..chip(name, target, flash_kib, ram_kib) }
}

/// All chips, in alphabetical order.
pub const ALL: &[Chip] = &[
    external("esp32", "xtensa", 4096, 320),
    external("esp32c3", "riscv32", 4096, 400),
    external("esp32c6", "riscv32", 4096, 512),
    external("esp32s3", "xtensa", 8192, 512),
    external("imxrt1062", "cortex-m7", 8192, 512),
    chip("lpc55s69", "cortex-m33", 640, 256),
    chip("max78000", "cortex-m4", 512, 128),
    chip("mcxn947", "cortex-m33", 2048, 416),
    chip("nrf52832", "cortex-m4", 512, 64),
    chip("nrf52833", "cortex-m4", 512, 128),
    chip("nrf52840", "cortex-m4", 1024, 256),
    chip("nrf5340", "cortex-m33", 1024, 512),
    chip("nrf54l15", "cortex-m33", 1524, 256),
    chip("nrf9160", "cortex-m33", 1024, 256),
    chip("ra4m1", "cortex-m4", 256, 32),
    chip("ra6m5", "cortex-m33", 2048, 512),
    external("rp2040", "cortex-m0", 2048, 264),
    external("rp2350", "cortex-m33", 4096, 520),
    chip("samd21", "cortex-m0", 256, 32),
    chip("samd51", "cortex-m4", 1024, 256),
    chip("stm32f103", "cortex-m3", 128, 20),
    chip("stm32f303", "cortex-m4", 512, 64),
    chip("stm32f401", "cortex-m4", 512, 96),
    chip("stm32f405", "cortex-m4", 1024, 128),
    chip("stm32f407", "cortex-m4", 1024, 128),
    chip("stm32f411", "cortex-m4", 512, 128),
    chip("stm32f429", "cortex-m4", 2048, 192),
    chip("stm32f446", "cortex-m4", 512, 128),
    chip("stm32f746", "cortex-m7", 1024, 320),
    chip("stm32f767", "cortex-m7", 2048, 512),
    chip("stm32g071", "cortex-m0", 128, 36),
    chip("stm32g474", "cortex-m4", 512, 128),
    chip("stm32h563", "cortex-m33", 2048, 640),
    chip("stm32h743", "cortex-m7", 2048, 512),
    chip("stm32h7a3", "cortex-m7", 2048, 1024),
    chip("stm32l053", "cortex-m0", 64, 8),
    chip("stm32l432", "cortex-m4", 256, 64),
    chip("stm32l476", "cortex-m4", 1024, 96),
    chip("stm32l4r5", "cortex-m4", 2048, 640),
    chip("stm32l552", "cortex-m33", 512, 256),
    external("stm32n657", "cortex-m55", 8192, 2048),
    chip("stm32u575", "cortex-m33", 2048, 768),
    chip("stm32u585", "cortex-m33", 2048, 768),
    chip("stm32wb55", "cortex-m4", 1024, 192),
    chip("stm32wl55", "cortex-m4", 256, 64),
];

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flash = if self.external_flash { "external flash" } else { "flash" };
        write!(f, "{}, {} KB {flash}, {} KB RAM", self.target, self.flash_bytes / KIB, self.ram_bytes / KIB)
    }
}

/// Reads a chip's name, with a part number's suffix or without: `stm32f405`, `STM32F405RG`, `nRF52840_xxAA`.
///
/// # Errors
/// A text for clap that names similar chips.
pub fn parse(text: &str) -> Result<Chip, String> {
    let name = text.to_lowercase().replace('-', "");
    if let Some(chip) = ALL.iter().find(|chip| chip.name == name) {
        return Ok(*chip);
    }
    let longest = ALL.iter().filter(|chip| name.starts_with(chip.name)).max_by_key(|chip| chip.name.len());
    if let Some(chip) = longest {
        return Ok(*chip);
    }
    let family: String = name.chars().take(5).collect();
    let near: Vec<&str> = ALL.iter().map(|chip| chip.name).filter(|n| n.starts_with(&family)).collect();
    let names = if near.is_empty() { ALL.iter().map(|chip| chip.name).collect() } else { near };
    Err(format!("unknown chip; known are {}. For others use --target with the core", names.join(", ")))
}

impl Chip {
    /// Compares a package with the chip: its bytes with the flash, tensors and scratch with the RAM.
    ///
    /// # Errors
    /// [`Code::Unsupported`] with both figures when one of them is larger.
    pub fn check(&self, path: &str, package_bytes: u64, memory_bytes: u64) -> Outcome<()> {
        let mut wrong = Vec::new();
        if package_bytes > self.flash_bytes {
            let (needs, has) = (grouped(package_bytes), grouped(self.flash_bytes));
            wrong.push(format!("the package takes {needs} bytes of flash, the chip has {has}"));
        }
        if memory_bytes > self.ram_bytes {
            let (needs, has) = (grouped(memory_bytes), grouped(self.ram_bytes));
            wrong.push(format!("tensors and scratch take {needs} bytes of RAM, the chip has {has}"));
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let hint = "use a smaller or int8 model or a larger chip; --no-fit-check compiles it anyway";
        Err(Failure::new(
            Code::Unsupported,
            format!("{path}: does not fit {}: {}\n  hint: {hint}", self.name, wrong.join("; ")),
        ))
    }

    /// Returns a line that compares a package with the chip.
    #[must_use]
    pub fn summary(&self, package_bytes: u64, memory_bytes: u64) -> String {
        let share = |part: u64, whole: u64| format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64);
        format!(
            "{}: {} of flash, {} of RAM ({}), firmware and stack not counted",
            self.name,
            share(package_bytes, self.flash_bytes),
            share(memory_bytes, self.ram_bytes),
            self
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::TARGETS;

    #[test]
    fn chips_are_sorted_and_have_a_target_and_memory() {
        for pair in ALL.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} and {}", pair[0].name, pair[1].name);
        }
        for chip in ALL {
            assert!(TARGETS.contains(&chip.target), "{}", chip.name);
            assert!(chip.flash_bytes >= chip.ram_bytes, "{}", chip.name);
            assert!((8 * KIB..=4096 * KIB).contains(&chip.ram_bytes), "{}", chip.name);
        }
    }

    #[test]
    fn part_numbers_are_understood() {
        for (text, name) in [("STM32F405RG", "stm32f405"), ("nRF52840_xxAA", "nrf52840"), ("ESP32-C3", "esp32c3")] {
            assert_eq!(parse(text).map(|chip| chip.name), Ok(name));
        }
        let said = parse("stm32x").expect_err("no chip");
        assert!(said.contains("stm32f405") && !said.contains("nrf52840"), "{said}");
        assert!(parse("z80").is_err_and(|e| e.contains("nrf52840")));
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_both_figures() {
        let chip = parse("stm32f405").expect("a chip");
        assert!(chip.check("m", 1 << 20, 128 << 10).is_ok());
        let failure = chip.check("m", 2 << 20, 6_021_120).expect_err("too large");
        for part in ["2,097,152", "1,048,576", "6,021,120", "131,072", "stm32f405"] {
            assert!(failure.text.contains(part), "no {part} in {}", failure.text);
        }
    }
}
