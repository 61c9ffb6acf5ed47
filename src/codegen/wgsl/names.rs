//! Identifiers.

use super::ops::HELPERS;
use std::collections::HashSet;

/// Hands out identifiers, none twice and none that WGSL or a helper function has.
pub(super) struct Names {
    taken: HashSet<String>,
}

/// Words that naga or another WGSL compiler reserves, as far as a buffer or loop may be called so.
const RESERVED: &str = "\
    alias array atomic bitcast bool break case const const_assert continue continuing default diagnostic discard else \
    enable f16 f32 f64 false fn for function i16 i32 i64 if immediate let loop mat2x2 mat3x3 mat4x4 override private ptr \
    read read_write requires return sampler select storage struct switch true u16 u32 u64 uniform var vec2 vec3 vec4 while \
    workgroup write abs all any acos acosh asin asinh atan atanh clamp ceil cos cosh cross degrees distance dot exp exp2 \
    faceForward floor fma fract frexp ldexp length log log2 max min mix modf normalize pow quantizeToF16 radians reflect \
    refract round saturate sign sin sinh smoothstep sqrt step tan tanh transpose trunc \
    abstract active as asm async attribute auto await become binding_array cast catch class common compile concept \
    constexpr crate debugger decltype delete demote do enum explicit export extends extern external fallthrough filter \
    final finally friend from get goto groupshared highp impl implements import in inline instanceof interface layout \
    lowp macro match mediump meta mod module move mut mutable namespace new nil noexcept noinline null nullptr of \
    operator package packoffset pass patch pixelfragment precise precision premerge protected pub public readonly ref \
    register resource restrict self set shared sizeof smooth snorm static std subroutine super target template this \
    thread throw trait try type typedef typeid typename typeof union unless unorm unsafe unsized use using varying \
    virtual volatile where with writeonly yield group_id local_id group";

impl Names {
    pub(super) fn new() -> Names {
        let mut taken: HashSet<String> = RESERVED.split_whitespace().map(str::to_string).collect();
        taken.extend(HELPERS.iter().map(|helper| helper.name.to_string()));
        Names { taken }
    }

    /// `name` with what identifiers may not contain replaced, and a number behind it where it is taken.
    pub(super) fn fresh(&mut self, name: &str) -> String {
        let base = sanitised(name);
        let mut candidate = base.clone();
        let mut number = 0;
        while !self.taken.insert(candidate.clone()) {
            number += 1;
            candidate = if base.ends_with(|c: char| c.is_ascii_digit()) {
                format!("{base}_{number}")
            } else {
                format!("{base}{number}")
            };
        }
        candidate
    }
}

/// An identifier close to `name`: letters, digits and single underscores, no digit or underscore first.
pub(super) fn sanitised(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !out.ends_with('_') {
            out.push(c);
        }
    }
    let out = out.trim_matches('_');
    if out.starts_with(|c: char| c.is_ascii_alphabetic()) { out.to_string() } else { format!("n{out}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_valid_and_unique() {
        let mut names = Names::new();
        assert_eq!(names.fresh("i.0"), "i_0");
        assert_eq!(names.fresh("i.0"), "i_0_1");
        assert_eq!(names.fresh("a.."), "a");
        assert_eq!(names.fresh("a"), "a1");
        assert_eq!(names.fresh("1x"), "n1x");
        assert_eq!(names.fresh("__"), "n");
        assert_eq!(names.fresh("in"), "in1");
        assert_eq!(names.fresh("erf_f32"), "erf_f32_1");
    }
}
