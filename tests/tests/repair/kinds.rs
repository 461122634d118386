//! Repairs that chance does not find, each made on purpose.
