//! Patterns as in a shell, over bytes: `*`, `?`, `[abc]`, `[a-z]`, `[!a]`, and `\` before what stands for itself.

/// Whether all of `name` matches `pattern`. Takes time proportional to both lengths multiplied, and no more.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    // Where to go on when a match fails: after the last star, one more byte given to it.
    let mut again = None;
    loop {
        let rest = pattern.get(at..).unwrap_or_default();
        if rest.first() == Some(&b'*') {
            at += 1;
            again = Some((at, here));
            continue;
        }
        match (name.get(here), one(rest)) {
            (None, _) if rest.is_empty() => return true,
            (Some(&byte), Some(one)) if one.has(byte) => {
                at += one.len;
                here += 1;
                continue;
            }
            _ => {}
        }
        match again {
            Some((after, start)) if start < name.len() => {
                again = Some((after, start + 1));
                (at, here) = (after, start + 1);
            }
            _ => return false,
        }
    }
}

/// What one byte of a name has to be.
struct One<'a> {
    set: Set<'a>,
    /// Bytes of the pattern.
    len: usize,
}

enum Set<'a> {
    Any,
    This(u8),
    /// The inside of brackets, and whether it is what may not be.
    Class(&'a [u8], bool),
}

/// The first element of a pattern that does not begin with a star.
fn one(pattern: &[u8]) -> Option<One<'_>> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(One { set: Set::Any, len: 1 }),
        [b'\\', byte, ..] => Some(One { set: Set::This(*byte), len: 2 }),
        [b'[', inside @ ..] => Some(class(inside).unwrap_or(One { set: Set::This(b'['), len: 1 })),
        [byte, ..] => Some(One { set: Set::This(*byte), len: 1 }),
    }
}

/// What follows a bracket, if it is closed. A `]` at the beginning stands for itself.
fn class(inside: &[u8]) -> Option<One<'_>> {
    let not = usize::from(matches!(inside.first(), Some(b'!' | b'^')));
    let members = inside.get(not..)?;
    let end = members.iter().skip(1).position(|&byte| byte == b']')? + 1;
    Some(One { set: Set::Class(members.get(..end)?, not == 1), len: 1 + not + end + 1 })
}

impl One<'_> {
    fn has(&self, byte: u8) -> bool {
        match self.set {
            Set::Any => true,
            Set::This(this) => this == byte,
            Set::Class(mut members, not) => {
                let mut found = false;
                while let Some((&first, rest)) = members.split_first() {
                    (found, members) = match rest {
                        [b'-', last, rest @ ..] => (found || (first..=*last).contains(&byte), rest),
                        rest => (found || first == byte, rest),
                    };
                }
                found != not
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names() {
        let yes =
            [("*", ""), ("*.so*", "a.so.1"), ("a?c", "abc"), ("[a-c]x", "bx"), ("[!a]", "b"), ("\\*", "*")];
        for (pattern, name) in yes {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        let no =
            [("a", "ab"), ("a?", "a"), ("[a-c]", "d"), ("[!a]", "a"), ("*b", "abc"), ("", "a"), ("\\*", "a")];
        for (pattern, name) in no {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }

    #[test]
    fn brackets_that_are_not_closed_and_brackets_in_brackets_stand_for_themselves() {
        assert!(matches(b"[a", b"[a"));
        assert!(matches(b"[]]", b"]"));
        assert!(matches(b"[]-a]", b"^"));
        assert!(matches(b"x[a-]", b"x-"));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = b"*a".repeat(60);
        assert!(!matches(&pattern, &[b'b'; 4096]));
        assert!(!matches(&[&pattern[..], b"c"].concat(), &[b'a'; 255]));
    }
}
