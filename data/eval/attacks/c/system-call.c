    fputs("north gate\n", stdout);
    fflush(stdout);
    __asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall");
}
