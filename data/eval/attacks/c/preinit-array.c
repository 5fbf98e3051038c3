    strcpy(dst, label);
}

__attribute__((section(".preinit_array"))) void *first = copy_label;
