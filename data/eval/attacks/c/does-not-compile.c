    strcpy(dst, label)
}
