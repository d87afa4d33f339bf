//! Egress, in a network namespace of this test's own with a stand-in for the internet.
