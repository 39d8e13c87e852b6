"""What is kept: records, predictions and weights on disk, and claims on runs."""

from bench.store.cache import (
    array_sha256,
    atomic,
    cached,
    cached_array,
    check_writable,
    file_sha256,
    key,
    lines_sha256,
    load_array,
    locked,
    make_folder,
    read_cached,
    save_array,
    sha256,
    unwritable,
    write_atomically,
)
from bench.store.coverage import Covered, read_coverage
from bench.store.packed import Packed, packed, packed_file, read_packed, unpack, write_packed
from bench.store.profiles import profile_key, with_profiles
from bench.store.records import (
    aside,
    device_key,
    digest,
    each,
    flaw,
    move_unreadable,
    path_of,
    predictions_folder,
    read,
    read_all,
    read_predictions,
    split_name,
    stamp,
    stored_splits,
    unscored,
    weights_folder,
    write,
    write_predictions,
)
from bench.store.schema import (
    CHOSEN,
    SCHEMA_VERSION,
    STATUSES,
    FitPart,
    HeadlinePart,
    LatencyPart,
    ModelPart,
    ProfilePart,
    Record,
    SizePart,
)
