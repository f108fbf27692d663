// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether valgrind runs this program. It cannot run a service beside it, and
//! ends a program that starts one.

/// Valgrind's number for the question.
const ARE_YOU_THERE: usize = 0x1001;

/// Asks by a sequence of instructions that does nothing anywhere else.
pub fn is_here() -> bool {
    let question = [ARE_YOU_THERE, 0, 0, 0, 0, 0];
    let mut answer = 0usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the rotations are by 128 bits altogether and the exchange is of a
    // register with itself; valgrind reads the question and sets the answer.
    unsafe {
        core::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") question.as_ptr(),
            inout("rdx") answer,
            inout("rdi") 0usize => _,
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") question.as_ptr(),
            inout("x3") answer,
            inout("x12") 0usize => _,
        );
    }
    answer != 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn nobody_is_there() {
        assert!(!super::is_here());
    }
}
