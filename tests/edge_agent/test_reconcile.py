from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.link.reconcile import Activate, Actual, Facts, Fetch, Keep, Refuse, Remove, objection, plan
from edge_agent.state import Quarantined
from fleet.messages import Assigned, Assignment

A, B, C = (Assigned(f"sha256:{digit * 64}", f"sha256:{digit * 63}0", "demo") for digit in "abc")
ME = "dev_1"


def assignment(sequence, device=ME, **pipelines):
    return Assignment(device, sequence, pipelines, 5.0)


def test_a_new_pipeline_is_fetched_and_activated_and_the_others_are_kept():
    actual = Actual({"one": A.manifest}, frozenset({A.manifest}))
    assert plan(assignment(1, one=A, two=B), actual, Facts(ME)) == (
        Keep("one", A.manifest),
        Fetch("two", B),
        Activate("two", B),
    )


def test_another_version_replaces_and_what_is_staged_is_not_fetched_again():
    actual = Actual({"one": A.manifest}, frozenset({A.manifest, B.manifest}))
    assert plan(assignment(2, one=B), actual, Facts(ME)) == (Activate("one", B),)


def test_what_is_no_longer_assigned_is_removed_first():
    actual = Actual({"old": A.manifest}, frozenset({A.manifest}))
    assert plan(assignment(2, new=B), actual, Facts(ME)) == (Remove("old"), Fetch("new", B), Activate("new", B))


def test_nothing_assigned_yet_keeps_what_came_with_the_image():
    actual = Actual({"baked": A.manifest})
    keep = (Keep("baked", A.manifest),)
    assert plan(None, actual, Facts(ME)) == keep
    assert plan(assignment(0), actual, Facts(ME)) == keep


def test_an_empty_assignment_with_a_sequence_removes_everything():
    assert plan(assignment(3), Actual({"one": A.manifest}), Facts(ME)) == (Remove("one"),)


def test_a_lower_sequence_is_never_applied():
    facts = Facts(ME, accepted=assignment(5, one=A))
    assert "a lower one is never applied" in objection(assignment(4, one=B), facts)
    assert plan(assignment(4, one=B), Actual({"one": A.manifest}), facts) == (Keep("one", A.manifest),)


def test_other_contents_under_the_same_sequence_are_not_applied():
    facts = Facts(ME, accepted=assignment(5, one=A))
    assert objection(assignment(5, one=A), facts) is None
    assert "other contents" in objection(assignment(5, one=B), facts)


def test_an_assignment_of_another_device_is_not_applied():
    other = assignment(9, device="dev_2", one=B)
    assert "dev_2" in objection(other, Facts(ME))
    assert plan(other, Actual({"one": A.manifest}), Facts(ME)) == (Keep("one", A.manifest),)


def test_a_manifest_in_quarantine_is_refused_until_it_is_assigned_anew():
    facts = Facts(ME, quarantined={B.manifest: Quarantined(2, "failed", "answers wrongly")})
    actual = Actual({"one": A.manifest}, frozenset({A.manifest}))
    assert plan(assignment(2, one=B), actual, facts) == (Refuse("one", B.manifest, "answers wrongly"),)
    assert plan(assignment(3, one=B), actual, facts) == (Fetch("one", B), Activate("one", B))


def test_a_name_or_digest_that_could_leave_the_data_folder_is_refused():
    bad = Assigned("sha256:../../../etc/passwd", "sha256:" + "0" * 64, "demo")
    actions = plan(Assignment(ME, 1, {"../up": A, "one": bad}, 5.0), Actual({}), Facts(ME))
    assert [type(action) for action in actions] == [Refuse, Refuse]


names = st.sampled_from(["one", "two", "three"])
versions = st.sampled_from([A, B, C])
pipelines = st.dictionaries(names, versions)


@given(pipelines, pipelines, st.sets(st.sampled_from([A.manifest, B.manifest, C.manifest])), st.integers(1, 9))
def test_carrying_out_a_plan_leads_to_the_assignment_and_then_there_is_nothing_to_do(wanted, here, staged, sequence):
    actual = Actual({name: version.manifest for name, version in here.items()}, frozenset(staged))
    order = assignment(sequence, **wanted)
    serving, fetched = dict(actual.serving), set(actual.staged)
    for action in plan(order, actual, Facts(ME)):
        if isinstance(action, Fetch):
            fetched.add(action.assigned.manifest)
        elif isinstance(action, Activate):
            assert action.assigned.manifest in fetched
            serving[action.name] = action.assigned.manifest
        elif isinstance(action, Remove):
            del serving[action.name]
    assert serving == {name: version.manifest for name, version in wanted.items()}
    again = plan(order, Actual(serving, frozenset(fetched)), Facts(ME, accepted=order))
    assert all(isinstance(action, Keep) for action in again)


@given(pipelines, pipelines, st.integers(0, 9), st.integers(1, 9))
def test_an_older_assignment_never_changes_anything(wanted, here, older, accepted):
    actual = Actual({name: version.manifest for name, version in here.items()})
    facts = Facts(ME, accepted=assignment(accepted + 10, **here))
    assert all(isinstance(action, Keep) for action in plan(assignment(older, **wanted), actual, facts))
