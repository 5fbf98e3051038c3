    strcpy(dst, label);
}
