//! Access control lists as text, with numbers for names: what `tar --acls` and bsdtar read.

use ext2_core::{Acl, AclTag};

/// The keyword and the text of an attribute that is a list; `None` for any other, and for one that is no valid list.
pub(super) fn record(name: &[u8], value: &[u8]) -> Option<(&'static [u8], String)> {
    let keyword: &[u8] = match name {
        b"system.posix_acl_access" => b"SCHILY.acl.access",
        b"system.posix_acl_default" => b"SCHILY.acl.default",
        _ => return None,
    };
    let acl = Acl::from_user(value)?;
    // What comes back from the text has to be these bytes.
    if acl.to_user() != value {
        return None;
    }
    let entries: Vec<String> = acl
        .entries()
        .iter()
        .map(|entry| {
            let who = match entry.tag {
                AclTag::UserObj => "user:".into(),
                AclTag::User(id) => format!("user:{id}"),
                AclTag::GroupObj => "group:".into(),
                AclTag::Group(id) => format!("group:{id}"),
                AclTag::Mask => "mask:".into(),
                AclTag::Other => "other:".into(),
            };
            let may = |bit: u16, letter| if entry.permissions & bit != 0 { letter } else { '-' };
            format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x'))
        })
        .collect();
    Some((keyword, entries.join(",")))
}
