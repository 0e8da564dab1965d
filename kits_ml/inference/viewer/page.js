// Starts NiiVue with the volumes that the page holds and connects the controls.
"use strict";

(async () => {
  const root = document.getElementById("viewer");
  const find = (selector) => root.querySelector(selector);
  const canvas = find("canvas");
  const settings = JSON.parse(document.getElementById("viewer-settings").textContent);

  const give_up = (reason) => {
    root.dataset.state = "failed";
    find(".message").textContent =
      `The interactive viewer cannot start here: ${reason}. The pictures on this page show the same prediction.`;
  };

  if (!document.createElement("canvas").getContext("webgl2")) {
    give_up("this browser has no WebGL 2");
    return;
  }

  const load = async (name, options) => {
    const holder = document.getElementById(`viewer-${name}`);
    const volume = await niivue.NVImage.loadFromBase64({ base64: holder.textContent, name: `${name}.nii.gz`, ...options });
    holder.remove();
    return volume;
  };

  const start = async () => {
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 0.85, 0.3, 0.9],
      crosshairGap: 6,
      crosshairWidth: 1.2, // thinner lines vanish between pixels
      crosshairWidthUnit: "mm",
      dragAndDropEnabled: false,
      fontColor: [1, 1, 1, 1],
      fontMinPx: 12,
      fontSizeScaling: 0.3,
      isColorbar: false,
      isRadiologicalConvention: true, // the patient's left is on the right
      loadingText: "",
      logLevel: "error",
      multiplanarPadPixels: 6,
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
      sagittalNoseLeft: true,
      scrollRequiresFocus: true, // the wheel scrolls the page until the viewer is clicked
      sliceType: niivue.SLICE_TYPE.MULTIPLANAR,
    });
    await nv.attachToCanvas(canvas);

    const [low, high] = settings.window_hu;
    nv.addVolume(await load("image", { colormap: "gray", cal_min: low, cal_max: high }));

    const labels = await load("labels", { opacity: settings.opacity });
    labels.setColormapLabel(settings.label_colours);
    nv.addVolume(labels);

    if (document.getElementById("viewer-entropy")) {
      nv.addColormap("doubt", settings.entropy_colours);
      nv.addVolume(await load("entropy", { colormap: "doubt", cal_min: 0, cal_max: 255, opacity: 0 }));
    }

    nv.onLocationChange = (place) => {
      const [hu, label, entropy] = place.values.map((one) => one.value);
      const parts = [`${Math.round(hu)} HU`, settings.label_names[Math.round(label)]];
      if (entropy !== undefined) parts.push(`uncertainty ${Math.round((100 * entropy) / 255)} %`);
      find("output.place").textContent = parts.join(", ");
    };

    const go_to = (mm) => {
      nv.scene.crosshairPos = nv.mm2frac(mm);
      nv.createOnLocationChange();
      nv.drawScene();
    };

    const on_input = (selector, act) => {
      const control = find(selector);
      if (control) control.addEventListener("input", () => act(control));
    };
    on_input("input.opacity", (slider) => {
      nv.setOpacity(1, slider.value / 100);
      find("output.opacity").textContent = `${slider.value} %`;
    });
    on_input("input.entropy", (box) => nv.setOpacity(2, box.checked ? settings.entropy_opacity : 0));
    on_input("select.planes", (choice) => {
      root.dataset.planes = choice.value;
      nv.setSliceType(niivue.SLICE_TYPE[choice.value]);
    });
    on_input("select.window", (choice) => {
      [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = choice.value.split(" ").map(Number);
      nv.updateGLVolume();
    });
    for (const button of root.querySelectorAll("button[data-mm]")) {
      button.addEventListener("click", () => go_to(button.dataset.mm.split(" ").map(Number)));
    }

    go_to(settings.start_mm);
    root.dataset.state = "ready";
  };

  try {
    await start();
  } catch (error) {
    give_up(error.message);
  }
})();
