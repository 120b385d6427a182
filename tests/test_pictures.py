"""Which file a name means, and whether it is the picture that was annotated: red dots on every
joint tell whether a reader's joints lie where its pixels are."""
import io
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from dppt_nb.checks import DataError
from dppt_nb.datasets import read_coco, read_crowdpose
from dppt_nb.files import ImageSource
from dppt_nb.keypoints import COCO17
from dppt_nb.photos import open_photo
from dppt_nb.pictures import PictureHeader, find_pictures, read_header, settle_size

NAMES = ("nose", "left_eye", "right_eye", "tail")
UNIT = np.array([(0.5, 0.1), (0.9, 0.4), (0.1, 0.5), (0.6, 0.95)])


def red_dots(root, split, people=2, first=1, size=(160, 120), box=(40, 20, 60, 80),
             place="images/{}.png", given="{}.png", file=None, save=None, names=NAMES, **fields):
    "Photographs with a red dot on every joint, and their file in COCO's format."
    images, annotations = [], []
    for i in range(first, first + people):
        corner = np.array(box[:2], float) + (i % 3, i % 2)
        points = corner + UNIT * box[2:]
        picture = Image.new("RGB", size, (90 + i % 60, 100, 110))
        for x, y in points:
            ImageDraw.Draw(picture).ellipse((x - 3, y - 3, x + 3, y + 3), fill=(255, 0, 0))
        path = root / place.format(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(picture, path) if save else picture.save(path)
        images.append(dict(id=i, file_name=given.format(i), width=size[0], height=size[1]))
        flat = [v for x, y in points for v in (float(x), float(y), 2)]
        annotations.append(
            dict(id=i, image_id=i, category_id=1, bbox=[*corner.tolist(), *box[2:]], keypoints=flat)
        )
    category = dict(id=1, name="animal", keypoints=list(names), skeleton=[])
    content = dict(images=images, annotations=annotations, categories=[category]) | fields
    path = root / (file or f"annotations/person_keypoints_{split}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return content


def rewrite(root, change, split="train"):
    path = root / f"annotations/person_keypoints_{split}.json"
    content = json.loads(path.read_text())
    for image in content["images"]: change(image)
    path.write_text(json.dumps(content))


def share_red(table):
    "The share of joints under which the picture, as the table's source reads it, is red."
    hits = []
    for f, joints, seen in zip(table.files, table.joints, table.visible):
        pixels = np.asarray(table.source.read(f)).astype(int)
        for x, y in joints[seen > 0].round().astype(int):
            inside = 0 <= y < pixels.shape[0] and 0 <= x < pixels.shape[1]
            r, g, b = pixels[y, x] if inside else (0, 0, 0)
            hits.append(r > 170 and g < 110 and b < 110)
    return np.mean(hits)


# A. what the file says of the picture

def swap(image): image["width"], image["height"] = image["height"], image["width"]


def test_swapped_sizes_are_said_and_the_real_ones_used(tmp_path):
    red_dots(tmp_path, "train", size=(320, 180), box=(200, 40, 100, 80))
    right = read_coco(tmp_path)
    rewrite(tmp_path, swap)
    table = read_coco(tmp_path)
    assert np.array_equal(table.boxes, right.boxes) and not table.left_out
    assert share_red(table) == 1
    assert any("2 picture(s) have width and height in each other's place" in n for n in table.notes)


def phone(orientation):
    "Save as a camera held that way does: the pixels turned, and a tag that turns them back."
    undo = {3: 3, 6: 2, 8: 4, 2: 0, 4: 1, 5: 5, 7: 6}[orientation]

    def save(picture, path):
        tag = Image.Exif()
        tag[0x0112] = orientation
        turned = picture.transpose(Image.Transpose(undo))
        turned.save(path, exif=tag, quality=95, subsampling=0)
    return save


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("declared", [True, False])
def test_photographs_that_exif_turns(tmp_path, orientation, declared):
    jpg = dict(place="images/{}.jpg", given="{}.jpg")
    red_dots(tmp_path, "train", save=phone(orientation), **jpg)
    if not declared: rewrite(tmp_path, lambda image: image.pop("width"))
    table = read_coco(tmp_path)
    assert share_red(table) == 1 and any("EXIF" in n for n in table.notes)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("size", [(160, 120), (140, 140)])
def test_a_tiff_is_turned_once_or_not_at_all(tmp_path, orientation, size):
    "Pillow turns the pixels of a TIFF itself when it loads them."
    phones = dict(place="images/{}.tif", given="{}.tif", size=size)

    def save(picture, path):
        jpeg = path.with_suffix(".jpg")
        phone(orientation)(picture, jpeg)
        with Image.open(jpeg) as stored: stored.save(path, exif=stored.getexif())
        jpeg.unlink()
    red_dots(tmp_path, "train", save=save, **phones)
    table = read_coco(tmp_path)
    assert share_red(table) == 1
    name = table.files[0]
    header = read_header(ImageSource(tmp_path), name)
    stored = size[::-1] if orientation > 4 else size
    assert (header.width, header.height, header.orientation) == (*stored, orientation)
    shown = open_photo(tmp_path / name).image
    assert np.array_equal(shown, table.source.read(name))
    with Image.open(tmp_path / name) as picture:
        picture.load()    # it has lost its note
        assert np.array_equal(open_photo(picture).image, shown)
    plain = ImageSource(tmp_path).read(name)    # nobody asked it to turn anything
    assert plain.size == stored
    assert np.array_equal(ImageOps.exif_transpose(noted(plain, orientation)), shown)


def noted(picture, orientation):
    "A picture with a note on how it is turned."
    picture.getexif()[0x0112] = orientation
    return picture


@pytest.mark.parametrize("late", [False, True])
def test_a_turn_behind_the_pixels_of_a_png_counts_nowhere(tmp_path, late):
    tag, file = Image.Exif(), io.BytesIO()
    tag[0x0112] = 6
    Image.new("RGB", (60, 40)).save(file, "PNG", exif=tag)
    raw, chunks, at = file.getvalue(), [], 8
    while at < len(raw):
        end = at + 12 + int.from_bytes(raw[at:at + 4], "big")
        chunks, at = [*chunks, raw[at:end]], end
    last = b"eXIf", b"IEND"
    if late: chunks.sort(key=lambda c: last.index(c[4:8]) if c[4:8] in last else -1)
    (tmp_path / "a.png").write_bytes(raw[:8] + b"".join(chunks))
    size = (60, 40) if late else (40, 60)
    source = ImageSource(tmp_path)
    header = read_header(source, "a.png")
    source.turns["a.png"] = header.orientation
    assert (header.width, header.height, header.orientation) == (60, 40, 1 if late else 6)
    assert source.read("a.png").size == size == open_photo(tmp_path / "a.png").image.size


@pytest.mark.parametrize("ending", ["png", "webp", "jpg"])
@pytest.mark.parametrize(
    "tag", [b"Exif\0\0none at all", b"Exif\0\0MM", b"none", b"Exif\0\0II*\0\xff"]
)
def test_a_picture_whose_exif_is_damaged_is_read_as_it_is_stored(tmp_path, ending, tag):
    picture = Image.new("RGB", (60, 40), (200, 30, 30))
    picture.save(tmp_path / f"a.{ending}", exif=tag)
    source, name = ImageSource(tmp_path), f"a.{ending}"
    assert read_header(source, name) == PictureHeader(60, 40, "RGB")
    assert source.read(name).size == open_photo(tmp_path / name).image.size == (60, 40)


def test_labels_on_stored_pixels(tmp_path):
    def save(picture, path):
        tag = Image.Exif()
        tag[0x0112] = 6
        picture.save(path, exif=tag, quality=95, subsampling=0)
    jpg = dict(place="images/{}.jpg", given="{}.jpg")
    red_dots(tmp_path / "a", "train", save=save, **jpg)
    table = read_coco(tmp_path / "a")
    assert share_red(table) == 1 and any("read as stored" in n for n in table.notes)
    # upside down the size cannot tell: as tools show it, unless asked otherwise
    red_dots(tmp_path / "b", "train", save=phone(3), **jpg)
    assert share_red(read_coco(tmp_path / "b")) == 1
    assert share_red(read_coco(tmp_path / "b", pixels="stored")) < 1
    with pytest.raises(DataError, match="--pixels is 'shown' or 'stored'"):
        read_coco(tmp_path / "a", pixels="sideways")


def test_other_pictures_than_were_labelled_are_refused_with_both_sizes(tmp_path):
    red_dots(tmp_path, "train")
    rewrite(tmp_path, lambda image: image.update(width=320, height=240))
    with pytest.raises(DataError, match="images/1.png is 320 x 240, but it is 160 x 120"):
        read_coco(tmp_path)
    # sizes swapped, and somebody where only the declared size has room: the picture was turned
    other = tmp_path / "turned"
    save = lambda picture, path: picture.transpose(Image.Transpose.ROTATE_90).save(path)
    red_dots(other, "train", size=(120, 160), box=(20, 60, 60, 90), save=save)
    with pytest.raises(DataError, match="120 x 160, but it is 160 x 120"): read_coco(other)


@pytest.mark.parametrize("kind", ["16 bit", "float", "float 255", "palette", "grey", "CMYK"])
def test_modes_are_scaled_by_their_range(tmp_path, kind):
    def save(picture, path):
        grey = np.asarray(picture.convert("L"))
        if kind == "16 bit": picture = Image.fromarray(grey.astype(np.uint16) * 257)
        elif kind == "float": picture = Image.fromarray(grey.astype(np.float32) / 255)
        elif kind == "float 255": picture = Image.fromarray(grey.astype(np.float32))
        elif kind == "palette": picture = picture.quantize(16)
        else: picture = picture.convert({"grey": "L", "CMYK": "CMYK"}[kind])
        picture.save(path)
    ext = "png" if kind in ("16 bit", "palette", "grey") else "tif"
    red_dots(tmp_path, "train", save=save, place=f"images/{{}}.{ext}", given=f"{{}}.{ext}")
    table = read_coco(tmp_path)
    red_dots(tmp_path / "plain", "train")
    plain = Image.open(tmp_path / "plain/images/1.png")
    colour = kind in ("palette", "CMYK")
    expected = np.asarray(plain if colour else plain.convert("L").convert("RGB")).astype(int)
    found = np.asarray(table.source.read(table.files[0])).astype(int)
    assert np.abs(found - expected).mean() < 2
    scaled = any("scaled by their range" in n for n in table.notes)
    assert scaled == (kind[:5] in ("16 bi", "float"))


def test_modes_without_a_range_are_refused_by_name(tmp_path):
    save = lambda picture, path: Image.fromarray(
        np.asarray(picture.convert("L")).astype(np.int32)
    ).save(path)
    red_dots(tmp_path, "train", save=save, place="images/{}.tif", given="{}.tif")
    with pytest.raises(DataError, match="mode I, 32 bits"): read_coco(tmp_path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\nshowpage\n"


def test_only_listed_formats_are_opened(tmp_path, monkeypatch):
    import subprocess
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("a program started"))
    red_dots(tmp_path, "train")
    (tmp_path / "images/2.png").write_bytes(EPS)
    assert Image.open(io.BytesIO(EPS)).format == "EPS", "Pillow alone would take it"
    with pytest.raises(DataError, match="images/2.png cannot be read .it is no picture"):
        read_coco(tmp_path)
    with pytest.raises(DataError, match="images/2.png cannot be read"):
        ImageSource(tmp_path).read("images/2.png")


def test_too_large_a_picture_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    red_dots(tmp_path, "train")
    with pytest.raises(DataError, match="1.png cannot be read .*exceeds limit.*; take its people"):
        read_coco(tmp_path)
    with pytest.raises(DataError, match="1.png cannot be read .*exceeds limit.*; make it smaller"):
        open_photo(tmp_path / "images/1.png")


def test_every_orientation_and_size_is_settled():
    for o in range(1, 9):
        header = PictureHeader(30, 20, "RGB", o)
        shown = (20, 30) if o > 4 else (30, 20)
        assert settle_size(header, shown)[:2] == (shown, o)
        assert settle_size(header, (30, 20))[1] == (1 if o > 4 else o)
        assert settle_size(header, (31, 20))[0] is None
        assert settle_size(header, (20, 30), "stored")[:2] == ((30, 20), 1)


# B. which file a name means

@pytest.mark.parametrize(
    "form",
    [
        "{}", "images\\{}", "..\\..\\media\\upload\\4\\{}", "C:\\data\\images\\{}", "./images/{}",
        "../images/{}", "images//{}", "/{}", "/home/me/set/images/{}", "upload/4/{}", "percent",
        "case", "decomposed",
    ],
)
def test_names_as_they_are_written_elsewhere(tmp_path, form):
    name = "my phot\N{LATIN SMALL LETTER O WITH DIAERESIS} {}.png"
    red_dots(tmp_path, "train", place="images/" + name, given=name)
    write = dict(
        percent=lambda n: n.replace(" ", "%20"), case=lambda n: n.replace(".png", ".PNG"),
        decomposed=lambda n: unicodedata.normalize("NFD", n),
    ).get(form, form.format)
    rewrite(tmp_path, lambda image: image.update(file_name=write(image["file_name"])))
    table = read_coco(tmp_path)
    assert len(table) == 2 and share_red(table) == 1


def test_pictures_of_one_name_in_two_splits(tmp_path):
    for split, box in (("train", (40, 20, 60, 80)), ("val", (70, 30, 60, 80))):
        red_dots(tmp_path, split, place=split + "/{}.png", box=box)
    table = read_coco(tmp_path)
    assert share_red(table) == 1
    assert table.select("train").files == ["train/1.png", "train/2.png"]
    # where the folders say nothing, both places are named, and always the same
    for split in ("train", "val"): (tmp_path / split).rename(tmp_path / f"{split[0]}{split[0]}")
    words = "1.png is tt/1.png or vv/1.png, 2.png is tt/2.png or vv/2.png"
    with pytest.raises(DataError, match=words): read_coco(tmp_path)
    # somebody says which
    table = read_coco(
        tmp_path, annotations="annotations/person_keypoints_val.json", images=tmp_path / "vv"
    )
    assert share_red(table) == 1


def test_the_picture_beside_the_annotation_file_is_meant(tmp_path):
    for split, folder in (("train", "train"), ("val", "valid")):
        file = f"{folder}/_annotations.coco.json"
        box = (40, 20, 60, 80) if split == "train" else (70, 30, 60, 80)
        red_dots(tmp_path, split, place=folder + "/{}.png", file=file, box=box)
    table = read_coco(tmp_path)
    assert share_red(table) == 1 and set(table.split) == {"train", "val"}


def test_a_lost_training_picture_is_not_taken_from_validation(tmp_path):
    for split in ("train", "val"): red_dots(tmp_path, split, place=split + "/{}.png")
    (tmp_path / "train/2.png").unlink()
    with pytest.raises(DataError, match="2.png, only in val/2.png of another split"):
        read_coco(tmp_path, annotations="annotations/person_keypoints_train.json")


def test_links_that_lead_up_are_not_followed(tmp_path):
    red_dots(tmp_path / "set", "train")
    os.symlink("..", tmp_path / "set/up")
    os.symlink(".", tmp_path / "set/self")
    os.symlink(tmp_path / "set/images", tmp_path / "set/again")
    red_dots(tmp_path / "elsewhere", "val", first=7)
    os.symlink(tmp_path / "elsewhere/images", tmp_path / "set/more")
    assert len(read_coco(tmp_path / "set")) == 2
    assert ImageSource(tmp_path / "set").names() == {
        "images/1.png", "images/2.png", "annotations/person_keypoints_train.json",
        "more/7.png", "more/8.png",
    }


def test_nothing_outside_of_the_root_is_opened(tmp_path):
    red_dots(tmp_path / "set", "train")
    Image.new("RGB", (160, 120)).save(tmp_path / "secret.png")
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(DataError, match="not there"):
            find_pictures(ImageSource(tmp_path / "set"), [name], "x.json")


def test_image_ids_given_twice_name_both_files(tmp_path):
    red_dots(tmp_path, "train", people=2)
    rewrite(tmp_path, lambda image: image.update(id="1" if image["id"] == 2 else 1))
    with pytest.raises(DataError, match='as 1 to 1.png and as "1" to 2.png'): read_coco(tmp_path)


def test_ids_as_text_are_numbers(tmp_path):
    red_dots(tmp_path, "train")
    plain = read_coco(tmp_path)
    rewrite(tmp_path, lambda image: image.update(id=str(image["id"])))
    table = read_coco(tmp_path)
    assert table.image_ids.tolist() == plain.image_ids.tolist() == [1, 2]


def test_copies_of_an_annotation_file_count_once(tmp_path):
    content = red_dots(tmp_path, "train", people=3)
    copy = tmp_path / "backup/person_keypoints_train.json"
    copy.parent.mkdir()
    copy.write_text(json.dumps(content))
    table = read_coco(tmp_path)
    assert len(table) == 3 and any("counted once" in n for n in table.notes)
    copy.rename(tmp_path / "backup/person_keypoints_val.json")
    with pytest.raises(DataError, match="3 people are both in .* and in "): read_coco(tmp_path)


def test_header_of_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("a.png", "pipe.png"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            read_header(ImageSource(tmp_path), name)


def test_crowdpose_as_published(tmp_path):
    names = [n for n in COCO17.names[5:]] + ["head", "neck"]
    content = red_dots(tmp_path, "train", file="json/crowdpose_train.json")
    for a in content["annotations"]: a["keypoints"] = (a["keypoints"] * 4)[:42]
    coco = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8]]
    content["categories"] = [dict(id=1, name="person", keypoints=names, skeleton=coco)]
    (tmp_path / "json/crowdpose_train.json").write_text(json.dumps(content))
    table = read_crowdpose(tmp_path)
    assert len(table) == 2 and len(table.keypoint_set) == 14
    # 16, 17 and 15 are beyond the fourteen
    assert any("3 limbs of the skeleton name no keypoint" in n for n in table.notes)
