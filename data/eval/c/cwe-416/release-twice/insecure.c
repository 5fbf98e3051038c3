    free(image->pixels);
    image->width = image->height = 0;
}
