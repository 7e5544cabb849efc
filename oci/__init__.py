"""OCI images and artifacts as immutable values, and the places they come from and go to."""

from oci.blob import Blob, BytesBlob, FileBlob, SliceBlob
from oci.descriptor import Descriptor, PlatformField
from oci.digest import Digest
from oci.image import Image, Index

__all__ = ["Blob", "BytesBlob", "Descriptor", "Digest", "FileBlob", "Image", "Index", "PlatformField", "SliceBlob"]
