//! Puts each program's memory layout where its linker looks for it.

use std::path::PathBuf;

/// Flash and memory that each program may take, in KiB: the link fails beyond it. Static memory and stack share theirs.
const BUDGETS: &[(&str, u32, u32)] = &[("apply", 24, 8), ("update", 32, 8), ("verify", 128, 64)];

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let template = std::fs::read_to_string("memory.x").expect("memory.x is here");
    for (program, flash, memory) in BUDGETS {
        let folder = out.join(program);
        std::fs::create_dir_all(&folder).expect("OUT_DIR can be written");
        let layout = template.replace("@FLASH@", &format!("{flash}K")).replace("@RAM@", &format!("{memory}K"));
        std::fs::write(folder.join("memory.x"), layout).expect("OUT_DIR can be written");
        println!("cargo:rustc-link-arg-bin={program}=-L{}", folder.display());
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=data");
}
