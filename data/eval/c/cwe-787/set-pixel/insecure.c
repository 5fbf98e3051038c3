    canvas->pixels[y * canvas->width + x] = color;
}
