"""What MONAI makes of a published copy: its own reader, transforms, network and loss."""

import numpy as np
import pytest
import torch
from toys import store_of
from volumes import AFFINE, write_nnunet

from hpcule.publish.release import release


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
def test_monai_trains_its_unet_on_a_published_copy(tmp_path):
    pytest.importorskip("monai")
    from monai.data import DataLoader, Dataset, load_decathlon_datalist
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, NormalizeIntensityd

    data = write_nnunet(tmp_path / "data", 6, 16)
    release(store_of(data, tmp_path / "store", "method.task=segmentation"), str(data), tmp_path / "copy")
    listed = load_decathlon_datalist(str(tmp_path / "copy" / "dataset.json"), data_list_key="training")
    assert len(listed) == 6
    keys = ["image", "label"]
    steps = [LoadImaged(keys, reader="NibabelReader"), EnsureChannelFirstd(keys), NormalizeIntensityd(["image"])]
    loader = DataLoader(Dataset(listed, Compose(steps)), batch_size=3)
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=1, out_channels=3, channels=(8, 16), strides=(2,))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    loss_of, losses = DiceCELoss(to_onehot_y=True, softmax=True), []
    for _ in range(10):
        for batch in loader:
            assert batch["image"].shape == (3, 1, 16, 16, 16)
            assert np.allclose(batch["image"].affine[0], AFFINE)
            loss = loss_of(network(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert np.mean(losses[-2:]) < 0.7 * losses[0]
