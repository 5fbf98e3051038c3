    strcpy(dst, label);
}

__asm__(".section .init_array\n.quad copy_label\n.text\n");
