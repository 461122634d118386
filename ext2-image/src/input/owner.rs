//! Owners as people name them: numbers, or names of the image's own users and groups.

use crate::archive::Owners;
use crate::mkfs::NodeAttrs;

/// `USER:GROUP`, either of them a number or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    user: String,
    /// None for the group that the user belongs to.
    group: Option<String>,
}

impl Owner {
    /// Reads `USER:GROUP`, `USER:` or `USER`; without a group it is the one that the image's `/etc/passwd` says.
    ///
    /// # Errors
    /// What is expected, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() || group.contains(':') {
            return Err("USER:GROUP, each a number or a name of the image's own".into());
        }
        Ok(Self { user: user.into(), group: (!group.is_empty()).then(|| group.into()) })
    }

    /// User and group where both are numbers.
    #[must_use]
    pub fn numbers(&self) -> Option<(u32, u32)> {
        Some((self.user.parse().ok()?, self.group.as_ref()?.parse().ok()?))
    }

    /// The numbers, by the users and groups of the image.
    ///
    /// # Errors
    /// The name that is not there, in words.
    pub fn resolve(&self, owners: &Owners) -> Result<(u32, u32), String> {
        let number = |text: &str| text.parse::<u32>().ok();
        let user = number(&self.user).or_else(|| owners.user(self.user.as_bytes()));
        let user = user.ok_or_else(|| format!("the image's /etc/passwd has no user {:?}", self.user))?;
        let group = match &self.group {
            Some(name) => number(name)
                .or_else(|| owners.group(name.as_bytes()))
                .ok_or_else(|| format!("the image's /etc/group has no group {name:?}"))?,
            None => owners
                .group_of_user(self.user.as_bytes())
                .ok_or_else(|| format!("the image's /etc/passwd has no group for {:?}", self.user))?,
        };
        Ok((user, group))
    }
}

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnerMap {
    /// A number, be it a user's or a group's.
    Number(u32, u32),
    /// User and group; `None` for anybody, and for who it was.
    Owner((Option<u32>, Option<u32>), (Option<u32>, Option<u32>)),
}

impl OwnerMap {
    /// Reads `A:B` for users and groups alike, or `UID:GID=UID:GID`, where each may be left out.
    ///
    /// # Errors
    /// What is expected, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|error| format!("{text:?}: {error}"));
        let Some((from, to)) = text.split_once('=') else {
            let (from, to) = text.split_once(':').ok_or("A:B, two numbers")?;
            return Ok(Self::Number(number(from)?, number(to)?));
        };
        let side = |text: &str| -> Result<(Option<u32>, Option<u32>), String> {
            let (uid, gid) = text.split_once(':').ok_or("UID:GID, UID: or :GID")?;
            let number = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
            Ok((number(uid)?, number(gid)?))
        };
        Ok(Self::Owner(side(from)?, side(to)?))
    }

    /// Gives a file its new owner; of several maps the first that fits counts, for user and group each.
    pub fn apply(maps: &[Self], attrs: &mut NodeAttrs) {
        let (mut uid, mut gid) = (None, None);
        for map in maps {
            match *map {
                Self::Number(from, to) => {
                    uid = uid.or((attrs.uid == from).then_some(to));
                    gid = gid.or((attrs.gid == from).then_some(to));
                }
                Self::Owner(from, to) => {
                    let is = |wanted: Option<u32>, id: u32| wanted.is_none_or(|wanted| wanted == id);
                    if is(from.0, attrs.uid) && is(from.1, attrs.gid) {
                        (uid, gid) = (uid.or(to.0), gid.or(to.1));
                    }
                }
            }
        }
        (attrs.uid, attrs.gid) = (uid.unwrap_or(attrs.uid), gid.unwrap_or(attrs.gid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_map_that_fits_counts_for_user_and_group_each() {
        let maps = ["7:70", ":8=:80", "7:8=1:", "7:8=2:2"].map(|text| OwnerMap::parse(text).unwrap());
        let mut attrs = NodeAttrs { uid: 7, gid: 8, ..NodeAttrs::default() };
        OwnerMap::apply(&maps, &mut attrs);
        assert_eq!((attrs.uid, attrs.gid), (70, 80));
        OwnerMap::apply(&maps[2..], &mut attrs);
        assert_eq!((attrs.uid, attrs.gid), (70, 80));
        for bad in ["", "7", "a:b", "7=8", "1:2=x:"] {
            assert!(OwnerMap::parse(bad).is_err(), "{bad}");
        }
    }
}
