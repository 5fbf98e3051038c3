    if (x < canvas->width && y < canvas->height)
        canvas->pixels[y * canvas->width + x] = color;
}
