//! Instruction sets the kernels are compiled for, and which of them this machine has.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set the kernels exist for, ordered from the least to the most capable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler may assume of every machine of the target architecture.
    Generic,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL, and all of [`Isa::Avx2`].
    Avx512,
}

impl Isa {
    /// Every instruction set, in increasing order.
    pub const ALL: [Isa; 3] = [Isa::Generic, Isa::Avx2, Isa::Avx512];

    /// The most capable instruction set of this machine; found once.
    pub fn detect() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(detect)
    }

    /// The instruction sets this machine has, in increasing order.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this machine has the instruction set.
    pub fn is_available(self) -> bool {
        self <= Isa::detect()
    }

    /// The name in text forms: `generic`, `avx2`, `avx512`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Generic => "generic",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma") && has!("f16c");
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        (false, _) => Isa::Generic,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Generic
}

/// Rows of a tile from which on the panel behind it is better asked for while it is computed: any where cores can have many loads under
/// way at once, as those of AMD from family 26 (Zen 5) on. On others what is asked for within few rows holds up what is read.
pub(crate) fn ahead_rows() -> usize {
    static KNOWN: OnceLock<usize> = OnceLock::new();
    *KNOWN.get_or_init(|| match cpu_family() {
        Some((vendor, 26..)) if vendor == *b"AuthenticAMD" => 0,
        Some(_) | None => 32,
    })
}

/// Who made the processor, and its family.
#[cfg(target_arch = "x86_64")]
fn cpu_family() -> Option<([u8; 12], u32)> {
    use std::arch::x86_64::__cpuid;
    let maker = __cpuid(0);
    let mut vendor = [0; 12];
    for (part, register) in vendor.chunks_exact_mut(4).zip([maker.ebx, maker.edx, maker.ecx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    let version = __cpuid(1).eax;
    let (family, extended) = (version >> 8 & 0xf, version >> 20 & 0xff);
    Some((vendor, if family == 0xf { family + extended } else { family }))
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_family() -> Option<([u8; 12], u32)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_sets_increase_up_to_the_detected_one() {
        let available = Isa::available();
        assert_eq!(available.first(), Some(&Isa::Generic));
        assert_eq!(available.last(), Some(&Isa::detect()));
        assert!(available.is_sorted());
    }
}
