    strcpy(out, folder);
    strcat(out, "/");
    strcat(out, file);
    return 0;
}
