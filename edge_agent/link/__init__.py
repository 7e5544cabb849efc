"""The link to the hub: enrolment, assignments, bundles that come, logs that go."""
