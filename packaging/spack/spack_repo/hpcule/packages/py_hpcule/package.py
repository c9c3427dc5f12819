"""Recipe of Spack; see packaging/README.md."""

from spack.package import *
from spack_repo.builtin.build_systems.python import PythonPackage


class PyHpcule(PythonPackage):
    """Make image collections unlearnable, on one process or a supercomputer, and measure what protection is left."""

    license("Apache-2.0")

    # Without a checksum: it is installed from a folder, by `spack develop`.
    version("0.1.0")

    variant("mpi", default=False, description="Ranks that an MPI launcher starts")
    variant("parquet", default=False, description="Tables of studies as Parquet, and Parquet as data")
    variant("pandas", default=False, description="Tables as data frames of pandas")
    variant("nifti", default=False, description="NIfTI volumes")
    variant("encryption", default=False, description="Stores that are encrypted at rest")
    variant("figures", default=False, description="Figures for papers")
    variant("clip", default=False, description="Encoders and networks of timm")

    depends_on("python@3.11:", type=("build", "run"))
    depends_on("py-hatchling", type="build")

    with default_args(type=("build", "run")):
        depends_on("py-h5py@3.10:")
        depends_on("py-jinja2@3.1:")
        depends_on("py-numpy@1.26:")
        depends_on("py-pillow@10:")
        depends_on("py-pyyaml@6:")
        depends_on("py-rich@13:")
        depends_on("py-scikit-learn@1.4:")
        depends_on("py-scipy@1.11:")
        # With `+cuda` or `+rocm` for the site's GPUs, and `+distributed +gloo`, which are its defaults.
        depends_on("py-torch@2.4: +distributed +gloo")
        depends_on("py-torchvision@0.19:")
        depends_on("py-mpi4py@4:", when="+mpi")
        depends_on("py-pyarrow@15: +parquet", when="+parquet")
        depends_on("py-pandas@2.2:", when="+pandas")
        depends_on("py-nibabel@5.3:", when="+nifti")
        depends_on("py-cryptography@42:", when="+encryption")
        depends_on("py-keyring@25:", when="+encryption")
        depends_on("py-matplotlib@3.9:", when="+figures")
        depends_on("py-timm@1.0:", when="+clip")
