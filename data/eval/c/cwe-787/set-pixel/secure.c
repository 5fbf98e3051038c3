    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height)
        return;
    canvas->pixels[y * canvas->width + x] = color;
}
