    if (strlen(folder) + strlen(file) + 1 > size)
        return -1;
    sprintf(out, "%s/%s", folder, file);
    return 0;
}
