//! mbarriers
