"""Train the digits CNN of the acceptance tests and write ``digits_cnn.onnx`` beside this file.

Data: scikit-learn's bundled digits, stratified 60/40, random_state=0 (1,078 train, 719 test).
Three convolutions with BatchNorm, 17,810 parameters, on one thread, seeded; about 15 seconds.
BatchNorm is left in the graph: folding it is part of what the tests check.
"""

from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

GRAPH = """
<ir_version: 10, opset_import: ["" : 21], producer_name: "make_digits_cnn">
digits_cnn (float[batch, 1, 8, 8] image) => (float[batch, 10] logits) {
    c1 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(image, conv1_w)
    n1 = BatchNormalization(c1, bn1_g, bn1_b, bn1_m, bn1_v)
    r1 = Relu(n1)
    c2 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(r1, conv2_w)
    n2 = BatchNormalization(c2, bn2_g, bn2_b, bn2_m, bn2_v)
    r2 = Relu(n2)
    p2 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r2)
    c3 = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(p2, conv3_w)
    n3 = BatchNormalization(c3, bn3_g, bn3_b, bn3_m, bn3_v)
    r3 = Relu(n3)
    s3 = Add(r3, p2)
    p3 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(s3)
    f = Flatten(p3)
    logits = Gemm<transB=1>(f, fc_w, fc_b)
}
"""


class DigitsCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.conv2, self.bn2 = nn.Conv2d(24, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.conv3, self.bn3 = nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(self.bn2(self.conv2(x)).relu(), 2)
        x = nn.functional.max_pool2d(self.bn3(self.conv3(x)).relu() + x, 2)
        return self.fc(x.flatten(1))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=0.4, stratify=y, random_state=0
    )
    images, labels = torch.from_numpy(train_x), torch.from_numpy(train_y)
    model = DigitsCnn()
    epochs, size = 60, 64
    steps = epochs * -(-len(images) // size)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(epochs):
        for part in torch.randperm(len(images)).split(size):
            # One pixel of random shift: digits are not centred.
            dx, dy = torch.randint(-1, 2, (2,)).tolist()
            batch = torch.roll(nn.functional.pad(images[part], (1, 1, 1, 1)), (dx, dy), (2, 3))
            logits = model(batch[:, :, 1:-1, 1:-1])
            loss = nn.functional.cross_entropy(logits, labels[part], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    proto = onnx.parser.parse_model(GRAPH)
    keys = {"weight": "g", "bias": "b", "running_mean": "m", "running_var": "v"}
    for name, tensor in model.state_dict().items():
        layer, key = name.split(".")
        if key == "num_batches_tracked":
            continue
        short = keys[key] if layer.startswith("bn") else {"weight": "w", "bias": "b"}[key]
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(tensor.numpy(), f"{layer}_{short}")
        )
    onnx.checker.check_model(proto, full_check=True)
    path = Path(__file__).with_name("digits_cnn.onnx")
    path.write_bytes(proto.SerializeToString())
    with torch.no_grad():
        right = (model(torch.from_numpy(test_x)).argmax(1).numpy() == test_y).mean()
    count = sum(p.numel() for p in model.parameters())
    print(f"{path.name}: {path.stat().st_size} bytes, {count} parameters, test {right:.4f}")


if __name__ == "__main__":
    main()
