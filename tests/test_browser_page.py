"""The page that runs networks in the reader's browser: built, opened in headless Chromium, used by
mouse and by keyboard, and held to Python's answers."""
import base64
import io
import json
import re
import shutil
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image

from dppt_nb.checkpoints import find_network, load_network, shipped_networks
from dppt_nb.checks import DataError
from dppt_nb.crops import box_to_center_scale, crop_affine, crop_image, normalize
from dppt_nb.evaluation import decode
from dppt_nb.export import exports_here
from dppt_nb.files import write_json
from dppt_nb.inference import VOTES, pose_boxes
from dppt_nb.pictures import free_photo
from dppt_nb.predictor import PosePredictor
from dppt_nb.synthetic import make_people

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import browser_page  # noqa: E402
from website import npm  # noqa: E402

FOUND = "document.getElementById('status').textContent.includes('found')"


# The page, built and opened once

@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    "The small network that ships, told to prune; and the same once more, to stand beside it."
    folder = tmp_path_factory.mktemp("networks")
    for name in ("pruned", "twin"):
        shutil.copytree(find_network("tokenpose_nano"), folder / name)
        about = json.loads((folder / name / "config.json").read_text())
        about["config"] |= {"prune_at": [1, 2], "keep_ratio": 0.7}
        about["recipe"]["overrides"] |= {"prune_at": [1, 2], "keep_ratio": 0.7}
        write_json(folder / name / "config.json", about)
    return {str(folder / "pruned"): "Pruned", str(folder / "twin"): "Twin"}


def built(out, networks, **options):
    "The built page."
    pytest.importorskip("onnx", reason="the page's networks are ONNX files: pip install onnx")
    if not exports_here(): pytest.skip("the page's networks are exported by PyTorch 2.8 or later")
    try: npm.files(*browser_page.RUNTIME)
    except DataError as error: pytest.skip(f"the page's run-time is not to be had: {error}")
    return browser_page.build_page(out, networks, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory, networks):
    "The page of the small networks."
    return built(tmp_path_factory.mktemp("site") / "try", networks)


@pytest.fixture(scope="module")
def browser(chromium_program, tmp_path_factory):
    "Headless Chromium with a camera that shows a photo without colours."
    from playwright import sync_api as playwright
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    Image.fromarray(free_photo("astronaut")).convert("L").convert("RGB").save(film, "JPEG")
    arguments = [
        "--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=chromium_program, args=arguments)
        yield chromium
        chromium.close()


def wait_for(page, condition):
    "Playwright's own `wait_for_function` runs text as a script, which the page forbids."
    end = time.monotonic() + 180    # a busy machine is no fault
    while not page.evaluate(f"() => Boolean({condition})"):
        assert time.monotonic() < end, f"waited for {condition}"
        page.wait_for_timeout(20)


class Visit:
    "A page that was opened, with all that it asked for and complained about."
    def __init__(self, browser, address, width=1440, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.page, self.complaints, self.requests = context.new_page(), [], []
        self.page.on("console", lambda said: said.type in ("error", "warning")
                     and self.complaints.append(said.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(180_000)    # a busy machine is no fault
        self.page.goto(address)
        wait_for(self.page, FOUND)

    def answer(self, act):
        "Do something, wait for the new answer, and give the words of it."
        self.page.evaluate("say('')")
        act()
        wait_for(self.page, FOUND)
        return self.page.inner_text("#status")

    def open_numbers(self):
        "Unfold the fields of the box, which may be unfolded already."
        self.page.evaluate("$('box-w').closest('details').open = true")

    def picture(self, canvas):
        "The pixels of a canvas, (H, W, 3)."
        url = self.page.evaluate(f"document.getElementById('{canvas}').toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))

    def close(self): self.page.context.close()


@pytest.fixture(scope="module")
def visit(browser, site):
    "The page from a folder, without a server."
    visit = Visit(browser, site.as_uri())
    yield visit
    visit.close()


@pytest.fixture(scope="module")
def first_visit(browser, tmp_path_factory):
    "A page as part of the site, with the network that readers meet first."
    name = next(iter(browser_page.known_networks()))
    out = tmp_path_factory.mktemp("shipped") / "try"
    visit = Visit(browser, built(out, {name: name}, home="../index.html").as_uri())
    yield visit
    visit.close()


# The same answers as Python

def drawn_people():
    "Twenty photographs of people drawn by program, each with a box; some large, some cut off."
    for i, size in enumerate([(128, 96), (90, 130), (330, 250)]):
        people = make_people(8 if i < 2 else 4, image_size=size, seed=i, margin=1.25)
        for k, image in enumerate(people.images):
            height, width = image.shape[1:]
            box = [0.1 * width - 9 * k, 0.1 * height, 0.8 * width, 0.8 * height + 5 * k]
            yield image.permute(1, 2, 0).numpy(), box


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def answer_of(network, recipe, image, box):
    "What Python says: the crop, joints read in two ways, survivors and attention of each patch."
    size = network.image_size
    center, scale = box_to_center_scale(np.array([box]), size)
    crop = crop_image(image, crop_affine(center[0], scale[0], 0, size), size)
    with torch.inference_mode():
        trace = network.trace(normalize(torch.from_numpy(crop).permute(2, 0, 1)[None]))
    J, last = network.num_keypoints, network.config.depth - 1
    shares = torch.zeros(J, len(trace.owner[0][last][0]))
    shares[:, trace.columns[0][last][0]] = trace.attention[0][last][0].mean(0)[:J, J:]
    decoded = {
        method: decode(recipe.change(decode=method), trace.heatmaps[0], center, scale)[0][0].numpy()
        for method in ("dark", "argmax")
    }
    kept = [layer[0].tolist() for layer in trace.kept[0]]
    return {"crop": crop, "kept": kept, "attention": shares.numpy(), **decoded}


ASK = """async ({ photo, box }) => {
  const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
  const canvas = await readPhoto(new Blob([bytes]));
  const pixels = (...part) => canvas.getContext("2d").getImageData(...part);
  const size = [canvas.height, canvas.width];
  const [dark, argmax] = await Promise.all(["dark", "argmax"].map((method) => (
    estimate(NETWORKS[0], pixels, size, box, method)
  )));
  const joints = ({ keypoints }) => keypoints.map(({ photo }) => photo);
  return {
    looks: [dark.looks, argmax.looks], boxes: [dark.box, argmax.box],
    dark: joints(dark), argmax: joints(argmax), kept: dark.kept, attention: [...dark.attention],
    crop: btoa(Array.from(dark.crop, (value) => String.fromCharCode(value)).join("")),
  };
}"""


def asked(visit, image, box=None):
    "What the page's first network says of a photograph, with a box or without."
    photo = base64.b64encode(png(image)).decode()
    return visit.page.evaluate(ASK, dict(photo=photo, box=box))


def test_the_browser_answers_as_python_does(visit, networks):
    answers_alike(visit, next(iter(networks)))


@pytest.mark.soak
def test_the_browser_answers_as_python_does_with_the_first_network(first_visit):
    name = next(iter(browser_page.known_networks()))
    answers_alike(first_visit, name)
    looks_twice_alike(first_visit, name, free_photo("astronaut"))


def answers_alike(visit, name):
    "Crop, joints, survivors and attention of twenty drawn people in boxes."
    (network, recipe, _), same = load_network(name), 0
    for image, box in drawn_people():
        there = asked(visit, image, box)
        assert there["looks"] == [1, 1] and there["boxes"] == [box, box]
        here = answer_of(network, recipe, image, box)
        crop = np.frombuffer(base64.b64decode(there["crop"]), np.uint8).astype(int)
        assert np.abs(crop - here["crop"].ravel()).max() <= 1
        for method in ("dark", "argmax"):
            assert np.abs(np.array(there[method]) - here[method]).max() < 0.5
        same += there["kept"] == here["kept"] and np.allclose(
            there["attention"], here["attention"].ravel(), atol=0.01
        )
    assert same >= 18    # of 20: two patches that matter equally may change places


def test_a_photo_without_a_box_is_looked_at_twice_as_in_python(visit, networks):
    looks_twice_alike(visit, next(iter(networks)))


def looks_twice_alike(visit, name, *photos):
    "Joints of the second look, and where it looked, of these and drawn photographs, without a box."
    people = make_people(4, image_size=(330, 250), seed=5, margin=2).images
    photos += tuple(person.permute(1, 2, 0).numpy() for person in people)
    network, recipe, keypoint_set = load_network(name)
    recipe = recipe.change(precision="fp32")    # as in the browser
    apart = {"dark": [], "argmax": []}    # pixels of the photograph
    for at, method in enumerate(apart):
        predictor = PosePredictor(network, recipe, keypoint_set, decode=method)
        for photo in photos:
            there, here = asked(visit, photo), predictor(photo)
            assert there["looks"][at] == 2
            whole = [0, 0, photo.shape[1], photo.shape[0]]
            assert np.abs(here.boxes[0] - whole).max() > 5    # the box did move
            assert np.abs(np.array(there["boxes"][at]) - here.boxes[0]).max() < 0.5
            apart[method].append(np.abs(np.array(there[method]) - here.keypoints[0]).max(1))
    assert np.max(apart["dark"]) < 0.5
    assert np.mean(np.array(apart["argmax"]) < 0.5) > 0.95    # two pixels may be equally high


def test_the_box_of_the_second_look_is_pythons(visit):
    "Many votes, four, three, all in one place; a joint just as high as the threshold votes."
    generator = np.random.default_rng(0)
    joints = generator.uniform(-20, 300, (5, 17, 2)).astype(np.float32)
    scores = generator.uniform(0, 0.5, (5, 17)).astype(np.float32)
    scores[1], scores[2], joints[3] = 0.09, 0.09, 50
    scores[1, :4], scores[2, :3], scores[4, :] = 0.5, 0.9, VOTES
    here = pose_boxes(joints, scores.astype(float), np.zeros((5, 4)))
    there = visit.page.evaluate(
        "people => people.map(poseBox)",
        [[dict(photo=place, score=score) for place, score in zip(*person)]
         for person in zip(joints.tolist(), np.where(scores == np.float32(VOTES), VOTES, scores)
                           .tolist())],
    )
    assert there[2] is None and not here[2].any()
    for k in (0, 1, 3, 4): np.testing.assert_allclose(there[k], here[k], atol=1e-3)
    assert here[3, 2:].max() < 1.2


def test_the_page_says_how_often_it_looked_and_where(visit):
    "Twice without a box; once in a box, and where too few joints say where the person is."
    page = visit.page
    said = visit.answer(lambda: page.click("#astronaut"))
    assert "It looked twice. 1 network took" in said and "ms for 2 looks" in said
    x, y, w, h = page.evaluate("state.results.get('pruned').box.map(Math.round)")
    told = page.inner_text("#box-words")
    assert f"box around the joints that it had found: {w} x {h} pixels, its corner at {x}, {y}" in (
        told
    )
    assert told.startswith("The box: the whole photo, 512 x 512 pixels. Pruned looked twice")
    assert page.inner_text("#caption-pruned").count("2 looks: ") == 1
    assert "at its second look" in page.get_attribute("#crop-pruned", "aria-label")
    shade = visit.picture("photo")[2, 2]    # outside of the second box, as outside of a drawn one
    page.evaluate("state.results.get('pruned').looks = 1; drawPhoto()")
    assert (visit.picture("photo")[2, 2] > shade).all()
    visit.open_numbers()
    page.fill("#box-w", "400")
    said = visit.answer(lambda: page.press("#box-w", "Tab"))
    assert "It looked once. 1 network took" in said and "ms for 1 look," in said
    assert "looked" not in page.inner_text("#box-words")
    assert "second look" not in page.get_attribute("#crop-pruned", "aria-label")


def test_a_photo_in_which_nothing_is_found_is_looked_at_once(visit, tmp_path, networks):
    Image.new("RGB", (96, 128)).save(tmp_path / "black.png")
    people = PosePredictor.from_pretrained(next(iter(networks)), device="cpu")(
        np.zeros((128, 96, 3), np.uint8)
    )
    assert (people.scores >= VOTES).sum() < 4 and people.boxes[0].tolist() == [0, 0, 96, 128]
    said = visit.answer(lambda: visit.page.set_input_files("#file", tmp_path / "black.png"))
    assert "It looked once." in said and "ms for 1 look," in said
    assert "fewer than four joints" in visit.page.inner_text("#box-words")


@pytest.mark.parametrize("shape, axis", [((64, 32), 0), ((32, 64), 1), ((16, 8, 3, 3), 0)])
def test_whole_numbers_with_a_scale_are_found_again(shape, axis):
    generator = np.random.default_rng(0)
    whole = generator.integers(-127, 128, shape)
    whole.swapaxes(0, axis)[:, 0] = 127                          # the largest of every channel
    sizes = [shape[axis] if i == axis else 1 for i in range(len(shape))]
    scale = generator.uniform(1e-4, 1e-2, sizes).astype(np.float32)
    small, scale_again = browser_page.shrunk(whole.astype(np.float32) * scale)
    assert small.dtype == np.int8
    np.testing.assert_array_equal(small * scale_again, whole.astype(np.float32) * scale)


def test_what_cannot_be_smaller_without_loss_stays():
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    assert browser_page.shrunk(values) is None
    assert browser_page.shrunk(values.astype(np.float16).astype(np.float32))[0].dtype == np.float16


def test_a_packed_network_answers_to_the_bit(networks):
    onnxruntime = pytest.importorskip("onnxruntime")
    if not exports_here(): pytest.skip("exporting needs PyTorch 2.8 or later")
    content = browser_page.exported(next(iter(networks)))
    lean = browser_page.lean(content)
    assert len(lean) < 0.85 * len(content)
    images = np.random.default_rng(0).normal(size=(1, 3, 128, 96)).astype(np.float32)
    answers = [
        onnxruntime.InferenceSession(file).run(None, {"images": images}) for file in (content, lean)
    ]
    for there, here in zip(*answers): np.testing.assert_array_equal(there, here)


# What a reader does

def test_the_page_asks_nobody_for_anything(visit):
    assert visit.page.evaluate("NETWORKS.length") == 2
    assert not [url for url in visit.requests if not url.startswith(("file:", "blob:", "data:"))]
    assert not visit.complaints


def test_the_browser_forbids_what_lies_elsewhere(camera):
    "Scripts, styles, frames and pictures of another site, requests and forms."
    forbidden = camera.page.evaluate("""async () => {
      const forbidden = [];
      document.addEventListener("securitypolicyviolation", (event) => {
        forbidden.push(event.effectiveDirective);
      });
      const there = "https://elsewhere.invalid/x";
      for (const [tag, side] of [
        ["script", "src"], ["link", "href"], ["iframe", "src"], ["img", "src"],
      ]) {
        const element = Object.assign(document.createElement(tag), { rel: "stylesheet" });
        element[side] = there;
        document.body.append(element);
      }
      await fetch(there).catch(() => {});
      const form = Object.assign(document.createElement("form"), { action: there });
      document.body.append(form);
      form.submit();
      // a busy machine tells of them late
      for (let waited = 0; forbidden.length < 6 && waited < 600; waited += 1) {
        await new Promise((go) => setTimeout(go, 100));
      }
      return forbidden.sort();
    }""")
    assert forbidden == [
        "connect-src", "form-action", "frame-src", "img-src", "script-src-elem", "style-src-elem",
    ]


def test_a_photo_is_uploaded_and_its_skeleton_drawn(visit, tmp_path):
    image = make_people(1, image_size=(256, 192), seed=4).images[0].permute(1, 2, 0).numpy()
    (tmp_path / "person.png").write_bytes(png(image))
    said = visit.answer(lambda: visit.page.set_input_files("#file", tmp_path / "person.png"))
    assert said.startswith("Pruned found 17 joints in person.png")
    for colour in ((86, 180, 233), (230, 159, 0)):
        close = np.abs(visit.picture("photo").astype(int) - colour).max(2) < 12
        assert close.sum() > 100
    assert "whole photo, 192 x 256" in visit.page.inner_text("#box-words")
    assert visit.page.locator("#rows tr").count() == 17


def test_a_photo_is_turned_as_people_see_it_and_made_smaller_if_huge(visit, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                                             # a camera held upright
    Image.new("RGB", (60, 40), (90, 120, 90)).save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (6000, 4000), 90).save(tmp_path / "huge.png", compress_level=1)
    for name, words in {"turned.jpg": "40 x 60 pixels.", "huge.png": "it had 6000 x 4000."}.items():
        visit.answer(lambda: visit.page.set_input_files("#file", tmp_path / name))
        assert words in visit.page.inner_text("#box-words")


def test_a_photo_that_is_too_long_for_a_canvas_is_made_smaller(visit, tmp_path):
    "A browser gives such a canvas, and only black pixels in it."
    Image.new("L", (70_000, 20), 90).save(tmp_path / "long.png")
    visit.answer(lambda: visit.page.set_input_files("#file", tmp_path / "long.png"))
    assert "it had 70000 x 20." in visit.page.inner_text("#box-words")
    middle = "pixelsOf(state.photo.width >> 1, state.photo.height >> 1, 1, 1).data[0]"
    assert visit.page.evaluate(middle) == 90


def test_what_is_transparent_is_said_to_count_as_black(visit, tmp_path):
    "One pixel far off is enough; a photo that has no such pixel has no such sentence."
    photo = Image.new("RGBA", (900, 700), (90, 120, 90, 255))
    for name, alpha in {"whole.png": 255, "clear.png": 254}.items():
        photo.putpixel((880, 690), (200, 90, 90, alpha))
        photo.save(tmp_path / name)
        visit.answer(lambda: visit.page.set_input_files("#file", tmp_path / name))
        told = visit.page.inner_text("#box-words")
        assert ("transparent in the photo counts as black" in told) == (alpha < 255)


def test_of_two_photos_the_one_that_is_chosen_later_counts(visit, tmp_path):
    "Also where the first takes long to read; a webcam is one of them."
    page = visit.page
    visit.answer(lambda: page.click("#synthetic"))    # the sample is there when it is wanted again
    slow = """() => {
      const file = new Promise((give) => { window.give = give; });
      window.first = takePhoto(file, "the first photo");
    }"""
    page.evaluate(slow)
    visit.answer(lambda: page.click("#astronaut"))
    page.evaluate("samplePhoto('astronaut').then(give); first")
    assert page.evaluate("state.photoName") == "the astronaut"
    page.evaluate(slow)
    page.click("#webcam")
    wait_for(page, "state.live")
    page.evaluate("samplePhoto('astronaut').then(give); first")
    assert page.evaluate("state.live && state.photoName") == "the webcam"
    page.click("#webcam")
    page.evaluate("$('webcam').click()")
    visit.answer(lambda: page.click("#astronaut"))    # while the webcam opens
    wait_for(page, "!opening")
    assert page.evaluate("[state.live, state.photoName]") == [None, "the astronaut"]


def test_what_is_no_picture_is_refused_in_a_sentence(visit, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    visit.page.set_input_files("#file", tmp_path / "notes.png")
    wait_for(visit.page, "document.getElementById('status').textContent.includes('PNG')")
    assert "notes.png is no picture" in visit.page.inner_text("#status")


def test_a_sample_that_is_missing_is_said_and_a_photo_is_still_taken(browser, site, tmp_path):
    "It is not called unreadable; and nothing on the page fails for want of a photo."
    shutil.copytree(site.parent, tmp_path / "try")
    (tmp_path / "try" / "embedded" / "astronaut.js").unlink()
    Image.fromarray(free_photo("astronaut")).save(tmp_path / "me.png")
    page, errors = browser.new_context().new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "try" / "index.html").as_uri())
    wait_for(page, "document.getElementById('status').textContent.includes('missing')")
    said = "embedded/astronaut.js is missing beside this page; choose a photo."
    assert page.inner_text("#status") == said
    page.evaluate("$('whole').click(); $('play').click(); drawAnother()")
    page.set_input_files("#file", tmp_path / "me.png")
    wait_for(page, FOUND)
    assert "in me.png" in page.inner_text("#status") and not errors
    page.context.close()


def test_a_bad_file_stops_nothing_and_its_sentence_stays(camera, tmp_path):
    "Also when an answer comes later, or a picture of the webcam."
    (tmp_path / "notes.png").write_text("no picture")
    page = camera.page
    page.evaluate("""() => {
      const truth = estimate;
      const slow = new Promise((go) => { window.go = go; });
      estimate = (...task) => slow.then(() => truth(...task));
      window.done = askAgain();
    }""")
    page.set_input_files("#file", tmp_path / "notes.png")
    wait_for(page, "$('status').textContent.includes('PNG')")
    page.evaluate("go(); done")
    assert "notes.png is no picture" in page.inner_text("#status")
    page.click("#webcam")
    wait_for(page, "state.live && $('status').textContent.includes('runs')")
    page.set_input_files("#file", tmp_path / "notes.png")
    wait_for(page, "$('status').textContent.includes('PNG')")
    page.evaluate("window.before = state.photo")
    wait_for(page, "state.live && state.photo !== before")
    assert "notes.png is no picture" in page.inner_text("#status")
    page.click("#add-twin")
    wait_for(page, "state.results.has('twin') && $('status').textContent === WEBCAM_RUNS")
    page.click("#webcam")


def test_a_photo_is_dropped_and_pasted(visit):
    give = """([photo, kind]) => {
      const bytes = Uint8Array.from(atob(photo), (letter) => letter.charCodeAt(0));
      const data = new DataTransfer();
      data.items.add(new File([bytes], "given.png", { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: data })
        : new ClipboardEvent("paste", { clipboardData: data });
      document.dispatchEvent(event);
    }"""
    image = make_people(1, seed=5).images[0].permute(1, 2, 0).numpy()
    photo = base64.b64encode(png(image)).decode()
    for kind, name in (("drop", "given.png"), ("paste", "the pasted photo")):
        assert f"in {name}" in visit.answer(lambda: visit.page.evaluate(give, [photo, kind]))


def test_what_is_dropped_and_pasted_is_named_or_refused(visit):
    "A photo without a type; the first of two photos; text and other files."
    page = visit.page
    give = """async ([kind, names, types]) => {
      const photo = await samplePhoto("astronaut");
      const data = new DataTransfer();
      names.forEach((name, i) => data.items.add(new File([photo], name, { type: types[i] })));
      if (!names.length) data.items.add("some text", "text/plain");
      document.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: data })
        : new ClipboardEvent("paste", { clipboardData: data }));
    }"""
    for given, told in (
        (["drop", ["photo"], [""]], "in photo,"),
        (["drop", ["a.pdf", "b", "c"], ["application/pdf", "image/jpeg", "image/png"]],
         "in b (the first of 2),"),
        (["paste", ["b", "c"], ["image/jpeg"] * 2], "in the pasted photo (the first of 2),"),
    ):
        assert told in visit.answer(lambda: page.evaluate(give, given))
    for given, told in (
        (["drop", [], []], "What was dropped is no picture."),
        (["paste", [], []], "What was pasted is no picture."),
        (["paste", ["a.pdf"], ["application/pdf"]], "What was pasted is no picture."),
    ):
        page.evaluate("say('')")
        page.evaluate(give, given)
        assert page.inner_text("#status") == told


def test_numbers_that_make_no_box_are_refused_in_a_sentence(visit):
    page = visit.page
    visit.answer(lambda: page.click("#astronaut"))
    visit.open_numbers()
    page.fill("#box-x", "100")
    visit.answer(lambda: page.press("#box-x", "Tab"))
    box = [100, 0, 412, 512]
    assert page.evaluate("state.box") == box
    for side, value, told in (
        ("x", "", "The left must be a number from 0 to 511"), ("y", "-3", "The top"),
        ("w", "413", "The width must be a number from 1 to 412"), ("h", "0", "The height"),
    ):
        page.fill(f"#box-{side}", value)
        page.press(f"#box-{side}", "Tab")
        assert page.inner_text("#status").startswith(told) and page.evaluate("state.box") == box
        assert page.input_value(f"#box-{side}") == str(box["xywh".index(side)])


def test_the_focus_of_the_file_field_is_seen_on_its_label_alone(visit):
    visit.page.keyboard.press("Tab")
    visit.page.focus("#file")
    style = "(element) => getComputedStyle(element).outlineStyle"
    rings = visit.page.evaluate(f"[...document.querySelectorAll('#file ~ *')].map({style})")
    assert rings == ["solid", "none", "none", "none"]


def test_without_javascript_the_page_says_that_it_needs_it(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    assert "This page needs JavaScript" in page.inner_text("header")
    context.close()


def test_a_box_is_drawn_by_mouse_and_given_in_numbers(visit):
    page, canvas = visit.page, visit.page.locator("#photo")
    visit.answer(lambda: page.click("#synthetic"))
    place = canvas.bounding_box()

    def drag():
        page.mouse.move(place["x"] + 10, place["y"] + 10)
        page.mouse.down()
        page.mouse.move(place["x"] + place["width"] / 2, place["y"] + place["height"] - 10)
        page.mouse.up()

    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    visit.answer(drag)
    half = page.evaluate("state.box[2] / state.photo.width")
    assert 0.4 < half < 0.5 and "its corner at" in page.inner_text("#box-words")
    visit.open_numbers()
    page.fill("#box-w", "100")
    visit.answer(lambda: page.press("#box-w", "Tab"))
    assert page.evaluate("state.box[2]") == 100
    visit.answer(lambda: page.click("#whole"))
    assert page.evaluate("state.box") is None


def test_scrolling_and_a_right_click_leave_the_box(visit):
    page, canvas = visit.page, visit.page.locator("#photo")
    visit.answer(lambda: page.click("#synthetic"))
    page.evaluate("state.box = [10, 10, 50, 60]; showBox()")
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    page.mouse.click(place["x"] + 40, place["y"] + 40, button="right")
    assert page.evaluate("state.box") == [10, 10, 50, 60]
    page.evaluate("""([x, y]) => {
      const canvas = $("photo");
      canvas.setPointerCapture = () => {};
      const send = (kind, way) => canvas.dispatchEvent(new PointerEvent(kind, {
        clientX: x + way, clientY: y + way, pointerId: 7, isPrimary: true, pointerType: "touch",
      }));
      send("pointerdown", 0);
      send("pointermove", 30);
      window.during = state.box;
      send("pointercancel", 30);
    }""", [place["x"] + 5, place["y"] + 5])
    assert page.evaluate("during") != [10, 10, 50, 60]    # a box was being drawn
    assert page.evaluate("state.box") == [10, 10, 50, 60]
    assert "its corner at 10, 10" in page.inner_text("#box-words")
    page.evaluate("state.box = null; showBox()")


def test_a_second_finger_draws_no_box_and_ends_none(visit):
    "The box goes from where the first finger was put down to where it is lifted."
    page, canvas = visit.page, visit.page.locator("#photo")
    visit.answer(lambda: page.click("#synthetic"))
    canvas.scroll_into_view_if_needed()
    place = canvas.bounding_box()
    visit.answer(lambda: page.evaluate("""([x, y]) => {
      const canvas = $("photo");
      canvas.setPointerCapture = () => {};
      const send = (kind, way, pointerId) => canvas.dispatchEvent(new PointerEvent(kind, {
        clientX: x + way, clientY: y + way, pointerId, isPrimary: pointerId === 7,
        pointerType: "touch",
      }));
      send("pointerdown", 0, 7);
      send("pointermove", 60, 7);
      window.during = state.box;
      send("pointerdown", 120, 8);
      send("pointermove", 130, 8);
      window.second = state.box;
      for (const kind of ["pointerup", "pointercancel"]) send(kind, 130, 8);
      send("pointermove", 70, 7);
      send("pointerup", 70, 7);
    }""", [place["x"] + 5, place["y"] + 5]))
    during, second, box = page.evaluate("[during, second, state.box]")
    assert during == second and box[2] > during[2] and box[:2] == during[:2]
    page.evaluate("state.box = null; showBox()")


def test_layers_and_attention_by_keyboard(visit):
    page = visit.page
    visit.answer(lambda: page.click("#astronaut"))
    last = visit.picture("crop-pruned")
    assert "24 of 48 patches" in page.inner_text("#caption-pruned")
    page.focus("#layer")
    for words in ("24 of 48", "24 of 48", "34 of 48", "all 48"):
        assert words in page.inner_text("#caption-pruned")
        page.keyboard.press("ArrowLeft")
    assert "all 48" in page.inner_text("#caption-pruned")
    assert page.inner_text("#layer-words") == "before the first"
    assert (visit.picture("crop-pruned") != last).any()
    page.keyboard.press("End")
    np.testing.assert_array_equal(visit.picture("crop-pruned"), last)
    page.focus("#joints button:first-child")
    assert "attention of the nose" in page.inner_text("#caption-pruned")
    nose = visit.picture("crop-pruned")
    page.keyboard.press("Tab")
    assert "attention of the left eye" in page.inner_text("#caption-pruned")
    assert (visit.picture("crop-pruned") != nose).any()
    page.evaluate("document.activeElement.blur()")
    np.testing.assert_array_equal(visit.picture("crop-pruned"), last)


def test_a_joint_under_the_pointer_shows_its_attention(visit):
    page = visit.page
    visit.answer(lambda: page.click("#astronaut"))
    x, y = page.evaluate("state.results.get('pruned').keypoints[0].crop")
    page.locator("#crop-pruned").scroll_into_view_if_needed()
    place = page.locator("#crop-pruned").bounding_box()
    zoom = place["width"] / 96
    page.mouse.move(place["x"] + (x + .5) * zoom, place["y"] + (y + .5) * zoom)
    assert page.evaluate("state.joint") is not None
    page.mouse.move(0, 0)
    assert page.evaluate("state.joint") is None


def test_a_joint_keeps_the_focus_and_its_attention_when_networks_come_and_go(browser, site):
    "Whoever walks through the joints by keyboard is not sent back to the top of the page."
    visit = Visit(browser, site.as_uri())
    page, focus = visit.page, "document.activeElement.dataset.joint"
    page.evaluate("""() => {
      const truth = estimate;
      estimate = async (network, ...rest) => {
        if (network.name === "twin") throw new Error("it is missing");
        return truth(network, ...rest);
      };
    }""")
    page.focus("#joints button:nth-child(3)")
    joint = page.evaluate(focus)
    # looked at within the click: soon after it the network has failed
    added = f"() => {{ $('add-twin').click(); return [{focus}, state.active.length]; }}"
    assert page.evaluate(added) == [joint, 2]
    wait_for(page, "$('status').textContent.includes('cannot run here')")
    assert page.evaluate(f"[{focus}, state.joint, state.active.length]") == [joint, joint, 1]
    shown = "[...document.querySelectorAll('#joints .shown')].map(b => b.dataset.joint)"
    assert page.evaluate(shown) == [joint]
    visit.close()


def test_layers_are_played(visit):
    page = visit.page
    page.click("#play")
    assert page.inner_text("#layer-words") == "before the first"
    wait_for(page, "document.getElementById('play').textContent === 'Play'")
    assert page.inner_text("#layer-words") == "after layer 4 of 4"


def test_a_network_that_cannot_load_is_taken_out_and_others_answer(browser, site):
    "It may be added again; the sentence about it stays until the reader acts."
    visit = Visit(browser, site.as_uri())
    page = visit.page
    visit.open_numbers()
    page.evaluate("""() => {
      window.truth = estimate;
      window.broken = "twin";
      estimate = async (network, ...rest) => {
        if (network.name === broken) throw new Error("it is missing");
        return truth(network, ...rest);
      };
    }""")
    page.click("#add-twin")
    wait_for(page, "$('status').textContent.includes('cannot run here: it is missing')")
    assert page.evaluate("state.active.map(({ name }) => name)") == ["pruned"]
    page.evaluate("window.broken = ''")
    assert "2 networks" in visit.answer(lambda: page.click("#add-twin"))
    page.evaluate("window.broken = 'pruned'")
    page.click("#synthetic")
    wait_for(page, "state.results.has('twin') && state.active.length === 1")
    assert page.inner_text("#status") == "Pruned cannot run here: it is missing."
    assert "Twin found 17 joints" in visit.answer(lambda: page.click("#whole"))
    assert page.locator("#add-pruned").count() == 1
    page.evaluate("window.broken = 'twin'")
    page.click("#astronaut")
    wait_for(page, "$('status').textContent.includes('Twin cannot run')")
    page.evaluate("window.broken = ''")
    assert "Twin found" in visit.answer(lambda: page.click("#whole"))
    visit.close()


def test_networks_stand_side_by_side(visit):
    page = visit.page
    said = visit.answer(lambda: page.click("#add-twin"))
    assert "2 networks" in said and page.locator("#add-twin").count() == 0
    np.testing.assert_array_equal(visit.picture("crop-pruned"), visit.picture("crop-twin"))
    page.select_option("#drawn", "twin")
    assert "that Twin found" in page.get_attribute("#photo", "aria-label")
    assert page.inner_text("#status").startswith("Twin found")
    page.evaluate("showPanels()")    # as when another one is added
    assert page.input_value("#drawn") == "twin"
    page.select_option("#drawn", "pruned")
    assert page.inner_text("#status").startswith("Pruned found")


def test_networks_are_added_by_keyboard_and_by_double_click(browser, site, tmp_path):
    "The focus goes on to the next button, at last to the heading; a double click adds one."
    shutil.copytree(site.parent, tmp_path / "try")
    facts = tmp_path / "try" / "embedded" / "list.js"
    more = "NETWORKS.push(...['b', 'c'].map((name) => ({ ...NETWORKS[1], name, label: name })));"
    facts.write_text(facts.read_text() + more)
    visit = Visit(browser, (tmp_path / "try" / "index.html").as_uri())
    page, focus = visit.page, "document.activeElement.id"
    page.evaluate("estimate = () => new Promise(() => {}); 0")
    active = "state.active.map(({ name }) => name)"
    page.dblclick("#add-twin")
    assert page.evaluate(active) == ["pruned", "twin"]
    page.focus("#add-b")
    page.keyboard.press("Enter")
    assert page.evaluate(focus) == "add-c"
    page.keyboard.press("Enter")
    assert page.evaluate(focus) == "inside-title"
    assert page.evaluate(active) == ["pruned", "twin", "b", "c"]
    visit.close()


def test_the_webcam_runs_and_stops(visit):
    page = visit.page
    page.click("#webcam")
    wait_for(page, "state.live && state.photoName === 'the webcam' && state.results.size")
    for _ in range(8):    # what is painted: only the skeleton has colours
        painted = Image.open(io.BytesIO(page.locator("#photo").screenshot())).convert("RGB")
        assert (np.ptp(np.array(painted).astype(int), axis=2) > 60).sum() > 100
    told = "[$('webcam').textContent, $('webcam').className, $('webcam').ariaPressed]"
    assert page.evaluate(told) == ["Stop the webcam", "shown", None]
    page.click("#webcam")
    assert page.evaluate(told) == ["Webcam", "", None]
    assert page.evaluate("$('video').srcObject.getTracks().every(t => t.readyState === 'ended')")
    assert not visit.complaints


def test_a_webcam_that_is_stopped_between_two_pictures_is_not_said_to_run(visit):
    "The last picture has its answer by then: what was found in it is said."
    page = visit.page
    page.evaluate("""() => {
      window.truth = requestAnimationFrame;
      window.requestAnimationFrame = (go) => { window.paint = go; };
    }""")
    page.click("#webcam")
    wait_for(page, "window.paint && state.live")
    assert "The webcam runs" in page.inner_text("#status")
    page.evaluate("$('webcam').click(); window.requestAnimationFrame = truth; paint(0)")
    wait_for(page, FOUND)
    assert "in the webcam" in page.inner_text("#status")


WATCHED = """() => {
  window.streams = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wish) => {
    streams.push(await ask(wish));
    return streams.at(-1);
  };
}"""
STOPPED = "streams.flatMap((s) => s.getTracks()).every(({ readyState }) => readyState === 'ended')"


@pytest.fixture
def camera(browser, site):
    "The page, with all the streams that it gets from the camera in `streams`."
    visit = Visit(browser, site.as_uri())
    visit.page.evaluate(WATCHED)
    yield visit
    visit.close()


def test_a_webcam_that_is_clicked_twice_is_asked_for_once_and_stops(camera):
    page = camera.page
    page.evaluate("$('webcam').click(); $('webcam').click()")
    wait_for(page, "state.live")
    assert page.evaluate("streams.length") == 1
    page.click("#webcam")
    assert page.evaluate(STOPPED)


def test_a_webcam_that_is_taken_away_stops_and_is_said(camera):
    page = camera.page
    page.click("#webcam")
    wait_for(page, "state.live && state.results.size")
    page.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('ended')); 0")
    wait_for(page, "!state.live")
    assert "was taken away" in page.inner_text("#status")
    assert page.inner_text("#webcam") == "Webcam" and page.evaluate(STOPPED)


def test_the_box_is_typed_while_the_webcam_runs(camera):
    page = camera.page
    page.click("#webcam")
    wait_for(page, "state.live && state.results.size")
    page.evaluate("$('box-w').closest('details').open = true; 0")
    page.fill("#box-w", "1")
    page.evaluate("window.before = state.photo; 0")
    wait_for(page, "state.photo !== before")    # another picture was answered
    page.keyboard.type("23")
    page.press("#box-w", "Tab")
    assert page.evaluate("state.box[2]") == 123
    page.click("#webcam")


def test_a_webcam_that_does_not_play_is_stopped(camera):
    page = camera.page
    page.evaluate("$('video').play = () => Promise.reject(new DOMException('', 'AbortError')); 0")
    page.click("#webcam")
    wait_for(page, "$('status').textContent.includes('AbortError')")
    assert page.evaluate("streams.length") == 1 and page.evaluate(STOPPED)


@pytest.mark.parametrize("devices, words", [
    ("undefined", "A webcam needs https or a local file"),
    ("{ getUserMedia: () => Promise.reject(new DOMException('', 'NotFoundError')) }", "no webcam;"),
    ("{ getUserMedia: () => Promise.reject(new DOMException('', 'NotAllowedError')) }", "allow it"),
])
def test_the_page_says_why_there_is_no_webcam(visit, devices, words):
    page = visit.page
    page.evaluate(f"Object.defineProperty(navigator, 'mediaDevices', {{ configurable: true, "
                  f"value: {devices} }}); 0")
    page.click("#webcam")
    wait_for(page, f"$('status').textContent.includes({json.dumps(words)})")
    page.evaluate("delete navigator.mediaDevices; 0")
    visit.answer(lambda: page.click("#astronaut"))


# Widths, colours, a server

@pytest.fixture(scope="module")
def axe():
    "The accessibility check, as a script."
    try: return npm.files(*npm.AXE)["axe.min.js"].decode()
    except DataError as error: pytest.skip(f"the accessibility check is not to be had: {error}")


@pytest.fixture(scope="module")
def served(site):
    "The address of a plain web server over the page."
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *words): pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site.parent))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.mark.parametrize("width, scheme", [(390, "dark"), (1440, "light")])
def test_nothing_serious_in_accessibility_and_nothing_too_wide(browser, served, axe, width, scheme):
    visit = Visit(browser, served, width, scheme)
    for summary in visit.page.locator("summary").all(): summary.click()
    visit.page.evaluate(axe)
    found = visit.page.evaluate("axe.run()")["violations"]
    serious = [rule["id"] for rule in found if rule["impact"] in ("serious", "critical")]
    assert not serious, json.dumps(found)[:3000]
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    own = (served, f"blob:{served}", "data:")
    assert not [url for url in visit.requests if not url.startswith(own)]
    assert not visit.complaints
    visit.close()


def test_the_page_is_printed_dark_on_white_where_the_readers_scheme_is_dark(browser, site):
    context = browser.new_context(color_scheme="dark", java_script_enabled=False)
    page = context.new_page()
    page.goto(site.as_uri())
    colours = """() => ["color", "backgroundColor"].map(of =>
        getComputedStyle(document.body)[of].match(/\\d+/g).reduce((sum, part) => sum + +part, 0))"""
    ink, paper = page.evaluate(colours)
    assert ink > 600 > 100 > paper
    page.emulate_media(media="print", color_scheme="dark")
    ink, paper = page.evaluate(colours)
    assert ink < 100 < 700 < paper
    context.close()


# The builder

def test_the_page_says_what_a_network_was_trained_on():
    said = said_of("ppt_nano_d12")
    assert "12 layers; 70 % of the patches stay in each of 3 layers" in said
    assert "people drawn by program, never on a photograph" in said
    taught, alone = said_of("dppt_s_lspet"), said_of("ppt_s_lspet")
    assert "taught by a network" in taught and "taught by a network" not in alone
    assert "photographs of athletes" in taught
    lite = "keeps all patches, begun with a backbone that others had trained on ImageNet. Finds 14"
    assert lite in said_of("tokenpose_lite_lspet")


@pytest.mark.parametrize("begun, told", [
    (dict(backbone_weights="lite0.pth"), "with a backbone that others had trained on ImageNet"),
    (dict(start="runs/first"), "from the weights of first"),
    (dict(start="runs/first", backbone_weights="lite0.pth"), "from the weights of first"),
])
def test_who_began_with_the_weights_of_others_may_have_seen_photographs(begun, told):
    said = said_of("tokenpose_nano", **begun)
    assert f", begun {told}. Finds" in said and "Trained on people drawn by program. Of" in said


def said_of(name, **changes):
    "What the page says of a network, or of one whose recipe has other fields."
    network, recipe, _ = load_network(name)
    return browser_page.sentence(name, network, recipe.change(**changes))


def stored_passes():
    "The stored scores of one pass, by network and data set."
    runs = json.loads(browser_page.ONE_PASS.read_text())["runs"]
    return {(run["network"], run["data"]): run for run in runs}


def test_the_page_tells_scores_of_one_look_which_is_what_it_takes_in_a_box():
    "From the results file, of the weights that ship; not those of the mirrored test."
    passes = stored_passes()
    assert {name for name, _ in passes} == set(shipped_networks())
    for (name, data), run in passes.items():
        known, (low, high) = run["conditions"], run["interval"]
        assert (known["mirror"], known["compute"]) == (False, "fp32")
        about = json.loads((find_network(name) / "config.json").read_text())
        assert run["weights"] == about["weights"]
        told = f"{run['score']:.0f} % on {run['people']} {browser_page.CALLED[data]} "
        told += f"({run['joints']} joints, 95 % interval {low:.0f} to {high:.0f} %)"
        assert told in said_of(name)
    said, judged = said_of("dppt_s_lspet"), load_network("dppt_s_lspet")[0].about["judged"]
    assert "with one look in boxes that were given" in said and "mirrored" not in said
    means = [row["scores"]["PCK@0.2 torso"]["mean"] for row in judged]
    assert means and not [mean for mean in means if f"{mean:.0f} % on" in said]


def test_a_network_that_does_not_ship_tells_how_it_was_judged(tmp_path):
    "A folder of a shipped network's name is another network, whose own scores are mirrored."
    folder = tmp_path / "tokenpose_nano_lspet"
    shutil.copytree(find_network(folder.name), folder)
    said = said_of(str(folder))
    assert "averaged with the mirrored picture, which the page does not do, 57 % on 631" in said
    about = dict(judged=dict(data="mine", mirror=False, scores={"PCK@0.2 torso": dict(
        mean=50.2, interval=[40, 60], people=70, joints=dict(nose=50.2, knee=50.2, neck=None),
    )}))
    said = browser_page.judged("x", about)
    told = "with one look in boxes that were given, 50 % on 70 people of mine (2 joints, 95 % "
    assert f"{told}interval" in said


def test_what_a_network_that_saw_drawn_people_only_finds_on_photographs_is_measured():
    "Of each that ships, athletes and everyday people; of another, that there is none."
    for name in ("tokenpose_nano", "ppt_nano_d12"):
        photographs = {data for network, data in stored_passes() if network == name}
        assert photographs == {"synthetic", "lspet", "coco"}
        said = said_of(name)
        assert "athletes of LSPET (13 joints" in said and "people of COCO (17 joints" in said
        assert "not measured" not in said
    mine = dict(data="synthetic", judged=[])
    assert browser_page.judged("mine", mine) == " It was not measured on photographs."


def test_the_page_has_the_cards_words_on_limits_once(tmp_path):
    said = browser_page.limits("dppt_s_lspet")
    assert said == browser_page.limits("ppt_s_lspet") and "over-represented" in said
    assert "##" not in said
    drawn = browser_page.limits("ppt_nano_d12")    # what has seen no photograph has its own words
    assert drawn == browser_page.limits("tokenpose_nano") != said
    (folder := tmp_path / "network").mkdir()
    shutil.copy(find_network("ppt_nano_d12") / "config.json", folder)
    assert browser_page.limits(str(folder)) is None    # without a card


@pytest.mark.parametrize("folders, words", [
    (("runs/first/best", "runs/second/best"), "runs/first/best has the same name"),
    (("runs/Best", "runs/best"), "runs/Best has the same name"),
    (("runs/worker",), "the page has a file worker of its own"),
    (("runs/list",), "the page has a file list"),
    (("ort-wasm",), "the page has"), (("Astronaut",), "the page has"),
    (("person-5",), "the page has"),
    (("runs/a#1",), "the page takes names of letters"), (("runs/50%",), "the page takes"),
    (("/",), "the page takes names of letters"),
])
def test_names_that_would_take_anothers_file_are_refused(tmp_path, folders, words):
    "Before anything is built: the page shows no network's label over another's weights."
    with pytest.raises(DataError, match=f"cannot be on the page .{words}.*; rename the folder"):
        browser_page.build_page(tmp_path / "try", dict.fromkeys(folders, "Mine"))
    assert not (tmp_path / "try").exists()
    browser_page.check_names(["runs/one.5_a-b", "person-6", *browser_page.known_networks()])


def test_the_page_takes_the_names_of_its_own_files_from_one_place(site):
    "What is embedded and no network is refused as a network's name."
    embedded = {path.stem for path in (site.parent / "embedded").iterdir()}
    assert embedded == browser_page.OWN_NAMES | {"pruned", "twin"}


def test_a_network_that_cuts_in_another_way_is_refused(networks):
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "none", [], [])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"dppt": json.dumps(dict(unbiased=False))})
    with pytest.raises(DataError, match="unbiased=False, which the page cannot do"):
        browser_page.described(next(iter(networks)), "Mine", model.SerializeToString())


def test_the_page_says_what_a_box_is_worth():
    "From the results file, of the network that it is about."
    told = json.loads(browser_page.SECOND_LOOK.read_text())
    given, whole = (told["results"]["lspet"][box] for box in ("of the labels", "the whole photo"))
    said = browser_page.worth_of_a_box(browser_page.known_networks())
    assert not told["mirror"] and "mirrored" not in said
    assert f"{given['one']:.0f} % of the joints in the box of the labels, looking once" in said
    assert f"{whole['one']:.0f} % looking once and {whole['two']:.0f} % looking twice" in said
    assert browser_page.worth_of_a_box({"tokenpose_nano": "another"}) is None


@pytest.mark.parametrize("home, glossary", [
    ("../index.html", "../glossary.html"), ("index.html", "glossary.html"), ("", ""),
    ("https://a.org/nb/", "https://a.org/nb/glossary.html"),
    ("https://a.org/nb", "https://a.org/nb/glossary.html"),
])
def test_the_glossary_lies_beside_the_sites_first_page(home, glossary):
    assert browser_page.glossary_of(home) == glossary


def test_the_page_leads_to_the_site_and_its_glossary(browser, site, tmp_path):
    "Where it is part of the site; alone it leads nowhere."
    shutil.copytree(site.parent, tmp_path / "try")
    facts = tmp_path / "try" / "embedded" / "list.js"
    for home, links in (("../index.html", ["../glossary.html", "../index.html"]), ("", [])):
        told = facts.read_text().partition("const HOME")[0]
        text = f"{told}const HOME = {json.dumps(home)};\nconst GLOSSARY = "
        facts.write_text(text + f"{json.dumps(browser_page.glossary_of(home))};\n")
        visit = Visit(browser, (tmp_path / "try" / "index.html").as_uri())
        shown = visit.page.locator("a:not([href^=LICENSE])")
        assert [link.get_attribute("href") for link in shown.all()] == links
        visit.close()


def test_every_network_that_ships_is_on_the_page_the_best_first():
    known, order = browser_page.known_networks(), list(browser_page.LABELS)
    assert set(known) == set(shipped_networks())
    assert next(iter(known)) == "dppt_s_lspet"
    assert list(known) == sorted(
        known, key=lambda name: (order.index(name) if name in order else len(order), name)
    )


def test_the_page_carries_colours_of_the_package():
    from dppt_nb.heat import HEAT
    from dppt_nb.pruning import DROPPED
    from dppt_nb.skeletons import COLOURS
    text = (browser_page.SOURCE / "drawing.js").read_text()
    for side, colour in COLOURS.items():
        assert f'{side}: "#{bytes(colour).hex()}"' in text
    assert json.loads(re.search(r"HEAT = (.*);", text)[1]) == [list(colour) for colour in HEAT]
    assert json.loads(re.search(r"DROPPED = (.*);", text)[1]) == list(DROPPED)
