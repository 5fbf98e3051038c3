    free(image->pixels);
    image->pixels = NULL;
    image->width = image->height = 0;
}
