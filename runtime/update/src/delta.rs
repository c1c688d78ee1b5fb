//! Updates as differences to a package that the device has.
