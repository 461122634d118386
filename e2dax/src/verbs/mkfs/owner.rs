//! Owners as options name them: numbers, or names of the image's own users and groups.

use ext2_image::archive::Owners;

/// `UID:GID`, either of them a number or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    user: String,
    /// None for the group that the user belongs to.
    group: Option<String>,
}

/// Reads `USER:GROUP`, `USER:` or `USER`; without a group it is the one that the image's `/etc/passwd` says.
pub(super) fn parse(text: &str) -> Result<Owner, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() || group.contains(':') {
        return Err("USER:GROUP, each a number or a name of the image's own".into());
    }
    Ok(Owner { user: user.into(), group: (!group.is_empty()).then(|| group.into()) })
}

impl Owner {
    /// Whether numbers are all that it takes.
    pub(super) fn numbers(&self) -> Option<(u32, u32)> {
        Some((self.user.parse().ok()?, self.group.as_ref()?.parse().ok()?))
    }

    /// The numbers, by the users and groups of the image.
    ///
    /// # Errors
    /// The name that is not there.
    pub(super) fn resolve(&self, owners: &Owners) -> Result<(u32, u32), String> {
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
